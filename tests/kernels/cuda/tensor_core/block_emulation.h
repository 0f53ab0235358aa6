// Blocks of both tensor core kernels, emulated with the kernels' own functions, instruction by instruction as
// the PTX ISA describes them. Their loops are those of conv_pipeline.h. All steps share one shared memory.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <ostream>
#include <string>
#include <vector>

#include "kernels/cuda/plans/cuda_problem.h"
#include "kernels/cuda/tensor_core/conv_kernels.h"
#include "kernels/cuda/tensor_core/conv_pipeline.h"
#include "kernels/cuda/tensor_core/conv_pool_tiling.h"
#include "kernels/cuda/tensor_core/conv_tiling.h"
#include "tests/kernels/cuda/tensor_core/mma_emulation.h"
#include "tests/kernels/cuda/tensor_core/pipeline_emulation.h"
#include "tests/kernels/cuda/tensor_core/wgmma_emulation.h"

namespace deeper::conv {

// Equivalent of StoreWarp with PixelsOf and LoadMasks (conv_epilogue.h).
template <bool kBackward, int kAcross = 1>
void StoreWarp(const Gemm& g, const Epilogue& e, int place, int column, const Accumulators& acc,
               float* sums) {
  const size_t blocks = acc[0].size();
  for (size_t group = 0; group * 4 < blocks; ++group) {
    const int first = column + static_cast<int>(group) * kGroupColumns;
    const auto exists = [&](int lane) { return group * 4 + static_cast<size_t>(lane) % 4 < blocks; };
    float own[kLanes][kChunk] = {};
    for (size_t fragment = 0; fragment < acc.size(); ++fragment) {
      for (int i = 0; i < 4; i += 2) {
        uint32_t pairs[kLanes][4] = {};
        for (int lane = 0; lane < kLanes; ++lane) {
          for (int block = 0; block < 4; ++block) {
            if (!exists(block)) continue;
            const float* const values = &acc[fragment][group * 4 + static_cast<size_t>(block)][lane][i];
            const Bias bias = BiasOf(g, e, first + block * 8 + FragmentColumn(lane, 0));
            const bf16 low = ToBf16(kBackward ? values[0] : Activated(e, values[0] + bias.low)),
                       high = ToBf16(kBackward ? values[1] : Activated(e, values[1] + bias.high));
            pairs[lane][block] = low.bits | uint32_t{high.bits} << 16;
          }
        }
        for (int distance = 1; distance <= 2; distance *= 2) {
          for (int j = 0; j < 4; ++j) {
            if ((j & distance) != 0) continue;
            uint32_t sent[kLanes];
            for (int lane = 0; lane < kLanes; ++lane) sent[lane] = Outgoing(pairs[lane], lane, distance, j);
            for (int lane = 0; lane < kLanes; ++lane)
              Incoming(pairs[lane], lane, distance, j, sent[lane ^ distance]);
          }
        }
        for (int lane = 0; lane < kLanes; ++lane) {
          if (!exists(lane)) continue;
          const int chunk = static_cast<int>((group * acc.size() + fragment) * 2) + i / 2;
          const int pixel =
              PixelIndex<kAcross>(g, place + static_cast<int>(fragment) * 16 + FragmentRow(lane, i));
          const int at = first + ChunkColumn(lane);
          StoreChunk<kBackward>(g, e, pixel, at, pairs[lane], MaskBits(g, e, pixel, at, chunk), chunk,
                                own[lane]);
        }
      }
    }
    if (e.mask == nullptr) continue;
    for (int lane = 0; lane < kLanes; ++lane) {
      if (!exists(lane)) continue;
      for (int j = 0; j < kChunk; ++j) {
        sums[group * kGroupColumns + static_cast<size_t>(ChunkColumn(lane) + j)] += own[lane][j];
      }
    }
  }
}

inline void StoreSums(const Gemm& g, const Epilogue& e, const Tile& tile,
                      const std::vector<std::vector<float>>& sums) {
  if (e.mask == nullptr) return;
  for (int column = 0; column < static_cast<int>(sums[0].size()) && tile.column + column < g.columns;
       ++column) {
    float sum = 0;
    for (const std::vector<float>& warp : sums) sum += warp[static_cast<size_t>(column)];
    e.sums[SumIndex(g, tile, column)] = sum;
  }
}

// Equivalent of ConvSm80.
template <bool kBackward, int kColumns, bool kPooled = false>
void BlockSm80(const Gemm& g, const Operands& operands, const Epilogue& e, int block) {
  constexpr int kFragments = 2, kRowWarps = 4, kWarpColumns = kColumns / 2;
  const Tile tile = TileOf(g, kColumns, block);
  std::vector<Accumulators> acc(8, MakeAccumulators(kFragments, kWarpColumns / 8));
  Shared shared(kCopyStages * StageBytes(kColumns), kUnwritten);
  Step copied = FirstStep(g), multiplied = copied;
  const auto copy = [&](int, int index, auto& copies) {
    const Step step = copied;
    Advance(g, copied);
    const int stage = index * StageBytes(kColumns);
    const auto start = [&](const auto& tensor) {
      return [&, stage](int to, int64_t from, bool inside) {
        std::array<bf16, kChunk> chunk = {};
        for (int i = 0; inside && i < kChunk; ++i) chunk[i] = tensor(static_cast<size_t>(from + i));
        copies.Start(stage + to, chunk);
      };
    };
    for (int thread = 0; thread < kCopyThreads; ++thread) {
      Source sources[kPixelCopies];
      for (int i = 0; i < kPixelCopies; ++i) sources[i] = SourceOf(g, tile, thread, i);
      if (kPooled) {
        PoolPixels(g, sources, operands.pooled_in, step, thread,
                   tile.column == 0 ? operands.positions : nullptr, [&](int to, const Octet& chunk) {
                     std::memcpy(&shared.at(static_cast<size_t>(stage + to)), &chunk, sizeof chunk);
                   });
      } else {
        CopyPixels(g, sources, step, thread, start(operands.in));
      }
      CopyWeights<kColumns>(g, tile, step, thread, start(operands.weights));
    }
  };
  const auto multiply = [&](int, int index) {
    const uint32_t stage = kBase + static_cast<uint32_t>(index * StageBytes(kColumns));
    for (int warp = 0; warp < 8; ++warp) {
      const int row = warp % kRowWarps * kFragments * 16, column = warp / kRowWarps * kWarpColumns;
      for (int slice = 0; slice < multiplied.slices; ++slice) {
        for (int b_block = 0; b_block < kWarpColumns / 8; b_block += 2) {
          std::array<uint32_t, kLanes> at;
          for (int lane = 0; lane < kLanes; ++lane) {
            at[lane] = stage + WeightMatrixOffset(kBackward, column + b_block * 8, slice, lane);
          }
          const auto b = LoadMatrices(shared, kBackward, at);
          for (int fragment = 0; fragment < kFragments; ++fragment) {
            for (int lane = 0; lane < kLanes; ++lane) {
              at[lane] = stage + PixelMatrixOffset(row + fragment * 16, slice, lane);
            }
            const auto a = LoadMatrices(shared, false, at);
            Multiply(acc[warp][fragment][b_block], a, b, 0);
            Multiply(acc[warp][fragment][b_block + 1], a, b, 2);
          }
        }
      }
    }
    Advance(g, multiplied);
  };
  CopyEmulation machine(shared, StageBytes(kColumns), copy, multiply);
  CopyAndMultiply<kCopyStages>(g.steps(), machine);
  std::vector<std::vector<float>> sums(kRowWarps, std::vector<float>(kColumns));
  for (int warp = 0; warp < 8; ++warp) {
    const int row = warp % kRowWarps * kFragments * 16, column = warp / kRowWarps * kWarpColumns;
    StoreWarp<kBackward>(g, e, tile.place + row, tile.column + column, acc[warp],
                         &sums[warp % kRowWarps][static_cast<size_t>(column)]);
  }
  StoreSums(g, e, tile, sums);
}

// Equivalent of ConvSm90.
template <bool kBackward, int kColumns, int kAcross>
void BlockSm90(const Gemm& g, const Operands& operands, const Epilogue& e, int block) {
  const Tile tile = TileOf(g, kColumns, block);
  const Recording recording = Record<kBackward, kColumns, kAcross>(g, tile, kBase);
  ConvolutionBlock pipeline(recording, g, kColumns, operands);
  pipeline.Run();
  const std::vector<float>& products = pipeline.sums();
  std::vector<Accumulators> acc(kMultiplyWarps, MakeAccumulators(1, kColumns / 8));
  for (int m = 0; m < kTilePixels; ++m) {
    for (int n = 0; n < kColumns; ++n) {
      // PTX ISA, "Register fragments and shared memory matrix layouts", D of wgmma.m64nNk16: warp w has the
      // rows from 16 w; lane l has row l / 4 of these and the row 8 below it.
      acc[m / 16][0][n / 8][m % 8 * 4 + n % 8 / 2][m % 16 / 8 * 2 + n % 2] =
          products[static_cast<size_t>(m * kColumns + n)];
    }
  }
  std::vector<std::vector<float>> sums(kMultiplyWarps, std::vector<float>(kColumns));
  for (int warp = 0; warp < kMultiplyWarps; ++warp) {
    StoreWarp<kBackward, kAcross>(g, e, tile.place + warp * 16, tile.column, acc[warp], sums[warp].data());
  }
  StoreSums(g, e, tile, sums);
}

// ---- Kernels ------------------------------------------------------------------------------------------

using Block = void (*)(const Gemm&, const Operands&, const Epilogue&, int block);
struct Kernel {
  std::string name;
  int tile_columns;
  int across;               // Gemm::across; above 1, for filters of that size only
  Block forward, backward;  // or nullptr
};
inline void PrintTo(const Kernel& kernel, std::ostream* out) {
  *out << kernel.name;
}

template <int kAcross, int... kForward, int... kBackward>
void AddSm90(Sizes<kForward...>, Sizes<kBackward...>, std::vector<Kernel>& kernels) {
  const auto name = [](int columns, const char* pass) {
    return "sm90x" + std::to_string(columns) + "taps" + std::to_string(kAcross) + pass;
  };
  (kernels.push_back({name(kForward, ""), kForward, kAcross, BlockSm90<false, kForward, kAcross>, nullptr}),
   ...);
  (kernels.push_back(
       {name(kBackward, "backward"), kBackward, kAcross, nullptr, BlockSm90<true, kBackward, kAcross>}),
   ...);
}

inline std::vector<Kernel> Kernels() {
  std::vector<Kernel> kernels = {{"sm80x64", 64, 1, BlockSm80<false, 64>, BlockSm80<true, 64>},
                                 {"sm80x128", 128, 1, BlockSm80<false, 128>, BlockSm80<true, 128>}};
  AddSm90<1>(Sm90Tiles<1, false>(), Sm90Tiles<1, true>(), kernels);
  AddSm90<3>(Sm90Tiles<3, false>(), Sm90Tiles<3, true>(), kernels);
  AddSm90<5>(Sm90Tiles<5, false>(), Sm90Tiles<5, true>(), kernels);
  return kernels;
}

inline bool CanRun(const Kernel& kernel, const ConvolutionProblem& problem) {
  const Block block = problem.pass == ConvolutionProblem::Pass::kForward ? kernel.forward : kernel.backward;
  return block != nullptr && (kernel.across == 1 || kernel.across == problem.kernel);
}

}  // namespace deeper::conv
