// Tests the index math of the tensor core convolutions in use. It emulates blocks of both kernels with the
// kernels' own functions, instruction by instruction as the PTX ISA describes them. Only a GPU can test that
// barriers and instructions behave as described.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/plans/cuda_problem.h"
#include "kernels/cuda/tensor_core/conv_pool_tiling.h"
#include "kernels/cuda/tensor_core/conv_tensor_core.h"
#include "kernels/cuda/tensor_core/conv_tiling.h"
#include "tests/kernels/cuda/tensor_core/conv_problem.h"
#include "tests/kernels/cuda/tensor_core/mma_emulation.h"
#include "tests/kernels/cuda/tensor_core/wgmma_emulation.h"
#include "tests/kernels/test_device.h"

namespace deeper::conv {
namespace {

using Pass = ConvolutionProblem::Pass;

// ---- Blocks -------------------------------------------------------------------------------------------

// Equivalent of StoreWarp (conv_epilogue.h).
template <bool kBackward>
void StoreWarp(const Gemm& g, const Epilogue& e, int pixel, int column, const Accumulators& acc,
               float* sums) {
  for (size_t group = 0; group < acc[0].size() / 4; ++group) {
    const int first = column + static_cast<int>(group) * kGroupColumns;
    float own[kLanes][kChunk] = {};
    for (size_t fragment = 0; fragment < acc.size(); ++fragment) {
      for (int i = 0; i < 4; i += 2) {
        uint32_t pairs[kLanes][4];
        for (int lane = 0; lane < kLanes; ++lane) {
          for (int block = 0; block < 4; ++block) {
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
          StoreChunk<kBackward>(g, e, pixel + static_cast<int>(fragment) * 16 + FragmentRow(lane, i),
                                first + ChunkColumn(lane), pairs[lane], own[lane]);
        }
      }
    }
    if (e.mask == nullptr) continue;
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int j = 0; j < kChunk; ++j) {
        sums[group * kGroupColumns + static_cast<size_t>(ChunkColumn(lane) + j)] += own[lane][j];
      }
    }
  }
}

void StoreSums(const Gemm& g, const Epilogue& e, const Tile& tile,
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
  for (int index = 0; index < g.steps(); ++index) {
    const Step step = StepAt(g, index);
    Shared shared(StageBytes(kColumns), 0x7F);
    const auto copy = [&shared](const std::vector<bf16>& tensor) {
      return [&](int to, int64_t from, bool inside) {
        for (int i = 0; i < kChunk; ++i) {
          const bf16 value = inside ? tensor.at(static_cast<size_t>(from + i)) : bf16{0};
          std::memcpy(&shared.at(static_cast<size_t>(to + i * 2)), &value, sizeof value);
        }
      };
    };
    for (int thread = 0; thread < kCopyThreads; ++thread) {
      Source sources[kPixelCopies];
      for (int i = 0; i < kPixelCopies; ++i) sources[i] = SourceOf(g, tile, thread, i);
      if (kPooled) {
        PoolPixels(g, sources, operands.in.data(), step, thread,
                   tile.column == 0 ? operands.positions : nullptr, [&shared](int to, const Octet& chunk) {
                     std::memcpy(&shared.at(static_cast<size_t>(to)), &chunk, sizeof chunk);
                   });
      } else {
        CopyPixels(g, sources, step, thread, copy(operands.in));
      }
      CopyWeights<kColumns>(g, tile, step, thread, copy(operands.weights));
    }
    for (int warp = 0; warp < 8; ++warp) {
      const int row = warp % kRowWarps * kFragments * 16, column = warp / kRowWarps * kWarpColumns;
      for (int slice = 0; slice < step.slices; ++slice) {
        for (int b_block = 0; b_block < kWarpColumns / 8; b_block += 2) {
          std::array<uint32_t, kLanes> at;
          for (int lane = 0; lane < kLanes; ++lane) {
            at[lane] = kBase + WeightMatrixOffset(kBackward, column + b_block * 8, slice, lane);
          }
          const auto b = LoadMatrices(shared, kBackward, at);
          for (int fragment = 0; fragment < kFragments; ++fragment) {
            for (int lane = 0; lane < kLanes; ++lane) {
              at[lane] = kBase + PixelMatrixOffset(row + fragment * 16, slice, lane);
            }
            const auto a = LoadMatrices(shared, false, at);
            Multiply(acc[warp][fragment][b_block], a, b, 0);
            Multiply(acc[warp][fragment][b_block + 1], a, b, 2);
          }
        }
      }
    }
  }
  std::vector<std::vector<float>> sums(kRowWarps, std::vector<float>(kColumns));
  for (int warp = 0; warp < 8; ++warp) {
    const int row = warp % kRowWarps * kFragments * 16, column = warp / kRowWarps * kWarpColumns;
    StoreWarp<kBackward>(g, e, tile.pixel + row, tile.column + column, acc[warp],
                         &sums[warp % kRowWarps][static_cast<size_t>(column)]);
  }
  StoreSums(g, e, tile, sums);
}

// Equivalent of ConvSm90.
template <bool kBackward, int kColumns>
void BlockSm90(const Gemm& g, const Operands& operands, const Epilogue& e, int block) {
  const Tile tile = TileOf(g, kColumns, block);
  std::vector<Accumulators> acc(8, MakeAccumulators(1, kColumns / 8));
  for (int index = 0; index < g.steps(); ++index) {
    const Step step = StepAt(g, index);
    Shared shared(StageBytes(kColumns), 0x7F);
    LoadPixels(shared, kBase, g, operands, PixelBoxOf(g, tile, step), step);
    for (int box = 0; box < kColumns / kBoxRows; ++box) {
      LoadWeights(shared, kBase + kPixelBytes + box * kBoxBytes, g, operands,
                  WeightBoxOf(g, tile, step, box));
    }
    for (int slice = 0; slice < step.slices; ++slice) {
      float b[kSliceDepth][kColumns];
      const MatrixDescriptor weights(WeightDescriptor(kBackward, kBase, slice));
      for (int k = 0; k < kSliceDepth; ++k) {
        for (int n = 0; n < kColumns; ++n) {
          b[k][n] = Read(shared, kBackward ? weights.Columns(n, k) : weights.Rows(n, k));
        }
      }
      for (int warpgroup = 0; warpgroup < 2; ++warpgroup) {
        const MatrixDescriptor pixels(PixelDescriptor(kBase, warpgroup, slice));
        for (int m = 0; m < 64; ++m) {
          float row[kColumns] = {};
          for (int k = 0; k < kSliceDepth; ++k) {
            const float a = Read(shared, pixels.Rows(m, k));
            for (int n = 0; n < kColumns; ++n) row[n] += a * b[k][n];
          }
          // PTX ISA, "Register fragments and shared memory matrix layouts", D of wgmma.m64nNk16: warp w has
          // the rows from 16 w; lane l has row l / 4 of these and the row 8 below it.
          const int warp = warpgroup * 4 + m / 16;
          for (int n = 0; n < kColumns; ++n) {
            acc[warp][0][n / 8][m % 8 * 4 + n % 8 / 2][m % 16 / 8 * 2 + n % 2] += row[n];
          }
        }
      }
    }
  }
  std::vector<std::vector<float>> sums(8, std::vector<float>(kColumns));
  for (int warp = 0; warp < 8; ++warp) {
    StoreWarp<kBackward>(g, e, tile.pixel + warp * 16, tile.column, acc[warp], sums[warp].data());
  }
  StoreSums(g, e, tile, sums);
}

// ---- Convolutions -------------------------------------------------------------------------------------

using Block = void (*)(const Gemm&, const Operands&, const Epilogue&, int);
struct Kernel {
  const char* name;
  int tile_columns;
  Block forward, backward;
};
void PrintTo(const Kernel& kernel, std::ostream* out) {
  *out << kernel.name;
}
constexpr Kernel kKernels[] = {
    {"sm80x64", 64, BlockSm80<false, 64>, BlockSm80<true, 64>},
    {"sm80x128", 128, BlockSm80<false, 128>, BlockSm80<true, 128>},
    {"sm90x64", 64, BlockSm90<false, 64>, BlockSm90<true, 64>},
    {"sm90x128", 128, BlockSm90<false, 128>, BlockSm90<true, 128>},
    {"sm90x192", 192, BlockSm90<false, 192>, BlockSm90<true, 192>},
};

bool SameBits(const std::vector<bf16>& a, const std::vector<bf16>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(bf16)) == 0;
}

// Runs every block of the kernel, and the naive convolution. The memory between slices is poisoned for
// reading and must not change.
void Check(const Kernel& kernel, const ConvolutionProblem& problem) {
  SCOPED_TRACE(ToString(problem));
  static const auto device = testing::MakeHostCudaDevice();
  const Gemm g = tensor_core::GemmOf(problem);
  const OperandSizes sizes = SizesOf(problem);
  std::minstd_rand generator;
  Operands operands = {WholeNumbers(sizes.a / 2, generator), WholeNumbers(sizes.b / 2, generator),
                       WholeNumbers(sizes.mask / 2, generator),
                       std::vector<bf16>(sizes.d / 2, bf16{kPoison})};
  for (size_t i = 0; i < operands.in.size(); ++i) {
    if (i % static_cast<size_t>(g.in_pitch) >= static_cast<size_t>(g.depth)) operands.in[i] = {kPoison};
  }
  const std::vector<bf16> bias = WholeNumbers(static_cast<size_t>(g.columns), generator);
  std::vector<float> wide_bias;
  for (const bf16 b : bias) wide_bias.push_back(ToFloat(b) + 0.25f);

  std::vector<bf16> expected = operands.out;
  std::vector<float> expected_sums(sizes.sums / sizeof(float)), sums = expected_sums;
  auto plan = AsCuda(*device).Plan(problem);
  ASSERT_TRUE(plan.ok()) << plan.status();
  (*plan)->Run({.a = operands.in.data(),
                .b = operands.weights.data(),
                .d = expected.data(),
                .bias = problem.wide_bias ? static_cast<const void*>(wide_bias.data()) : bias.data(),
                .mask = operands.mask.data(),
                .sums = expected_sums.data()});

  std::vector<float> partial(static_cast<size_t>(g.pixel_tiles() * g.columns), -1e30f);
  Epilogue e;
  e.out = operands.out.data();
  e.relu = problem.relu;
  if (problem.bias && problem.wide_bias) e.wide_bias = wide_bias.data();
  if (problem.bias && !problem.wide_bias) e.bias = bias.data();
  if (problem.mask_dx) {
    e.mask = operands.mask.data();
    e.sums = partial.data();
  }
  for (int block = 0; block < Blocks(g, kernel.tile_columns); ++block) {
    (g.backward ? kernel.backward : kernel.forward)(g, operands, e, block);
  }
  EXPECT_TRUE(SameBits(operands.out, expected));
  // The naive convolution adds before it rounds, the kernels add after rounding.
  std::fill(expected_sums.begin(), expected_sums.end(), 0.0f);
  for (size_t i = 0; i < sums.size(); ++i) {
    for (int tile = 0; tile < g.pixel_tiles(); ++tile) {
      sums[i] += partial[static_cast<size_t>(tile * g.columns) + i];
    }
    for (int pixel = 0; pixel < g.pixels(); ++pixel) {
      expected_sums[i] += ToFloat(expected[static_cast<size_t>(pixel * g.out_pitch) + i]);
    }
  }
  EXPECT_EQ(sums, expected_sums);
}

class ConvKernelTest : public ::testing::TestWithParam<Kernel> {};
INSTANTIATE_TEST_SUITE_P(, ConvKernelTest, ::testing::ValuesIn(kKernels),
                         [](const auto& kernel) { return std::string(kernel.param.name); });

// Covers pixels in several tiles and images, columns in several tiles, depths from one slice to several
// steps.
const ConvolutionProblem kProblems[] = {
    Problem(Pass::kForward, 3, 7, 7, 16, 24, 3),    Problem(Pass::kForward, 2, 9, 6, 24, 72, 5),
    Problem(Pass::kForward, 1, 12, 13, 112, 40, 1), Problem(Pass::kForward, 1, 6, 5, 144, 200, 3),
    Problem(Pass::kForward, 131, 1, 1, 8, 8, 3),    Problem(Pass::kForward, 1, 3, 50, 64, 64, 3),
};

TEST_P(ConvKernelTest, Forward) {
  for (ConvolutionProblem problem : kProblems) {
    Check(GetParam(), problem);
    problem.bias = problem.relu = true;
    Check(GetParam(), problem);
    problem.wide_bias = true;
    problem.x_pitch = problem.c + 8;
    problem.y_pitch = problem.k + 40;
    Check(GetParam(), problem);
  }
}

TEST_P(ConvKernelTest, BackwardData) {
  for (ConvolutionProblem problem : kProblems) {
    problem.pass = Pass::kBackwardData;
    Check(GetParam(), problem);
    problem.mask_dx = true;
    Check(GetParam(), problem);
    problem.x_pitch = problem.c + 8;
    problem.y_pitch = problem.k + 40;
    problem.mask_pitch = problem.c + 16;
    Check(GetParam(), problem);
  }
}

// ---- Pooling ------------------------------------------------------------------------------------------

struct NaivelyPooled {
  std::vector<bf16> values;  // [pixel][channel]
  std::vector<uint8_t> positions;
};

// The first maximum of the 3x3 neighbours in scan order. A NaN is larger than every number.
NaivelyPooled PoolNaively(const Gemm& g, const std::vector<bf16>& in) {
  NaivelyPooled pooled;
  for (int index = 0; index < g.pixels(); ++index) {
    const Pixel pixel = PixelAt(g, index);
    for (int channel = 0; channel < g.depth; ++channel) {
      float best = 0;
      int first = -1;
      for (int row = std::max(pixel.row - 1, 0); row <= std::min(pixel.row + 1, g.height - 1); ++row) {
        for (int column = std::max(pixel.column - 1, 0); column <= std::min(pixel.column + 1, g.width - 1);
             ++column) {
          const int64_t at = (int64_t{pixel.image} * g.height + row) * g.width + column;
          const float value = ToFloat(in.at(static_cast<size_t>(at * g.in_pitch + channel)));
          if (first >= 0 && !(value > best) && !std::isnan(value)) continue;
          best = value;
          first = (row - pixel.row + 1) * 3 + column - pixel.column + 1;
        }
      }
      pooled.values.push_back(ToBf16(best));
      pooled.positions.push_back(static_cast<uint8_t>(first));
    }
  }
  return pooled;
}

TEST(PooledConvTest, FirstMaximaAndTheirPlaces) {
  const Gemm g = tensor_core::GemmOf(Problem(Pass::kForward, 3, 6, 5, 16, 8, 1));
  std::minstd_rand generator;
  std::vector<bf16> in = WholeNumbers(static_cast<size_t>(g.pixels() * g.depth), generator);
  for (size_t i = 0; i < in.size(); i += 7) in[i] = ToBf16(i % 2 == 0 ? -INFINITY : NAN);
  const NaivelyPooled expected = PoolNaively(g, in);
  for (int index = 0; index < g.pixels(); ++index) {
    for (int channel = 0; channel < g.depth; channel += kChunk) {
      const Source at = SourceAt(g, index);
      const Maxima maxima = PoolChunk(g, in.data(), at, channel);
      const auto values = std::bit_cast<Chunk>(maxima.values);
      const auto positions = std::bit_cast<std::array<uint8_t, kChunk>>(maxima.positions);
      for (int j = 0; j < kChunk; ++j) {
        const auto i = static_cast<size_t>(index * g.depth + channel + j);
        ASSERT_EQ(values.v[j].bits, expected.values[i].bits) << index << ", " << channel + j;
        const int row = at.row + positions[j] / 3 - 1, column = at.column + positions[j] % 3 - 1;
        ASSERT_TRUE(row >= 0 && row < g.height && column >= 0 && column < g.width) << index;
        if (!std::isnan(ToFloat(values.v[j]))) {
          ASSERT_EQ(positions[j], expected.positions[i]) << index << ", " << channel + j;
        }
      }
    }
  }
}

TEST(PooledConvTest, Forward) {
  // Covers three tiles of pixels, depths of one and two steps, columns of one and two tiles of 64.
  for (ConvolutionProblem problem :
       {Problem(Pass::kForward, 6, 7, 7, 40, 32, 1), Problem(Pass::kForward, 1, 18, 15, 112, 136, 1)}) {
    problem.bias = problem.relu = true;
    const ConvolutionProblem dense = problem;
    problem.x_pitch = problem.c + 24;
    const Gemm g = tensor_core::GemmOf(problem);
    std::minstd_rand generator;
    Operands operands = {WholeNumbers(SizesOf(problem).a / 2, generator),
                         WholeNumbers(SizesOf(problem).b / 2, generator),
                         {},
                         std::vector<bf16>(SizesOf(problem).d / 2)};
    const std::vector<bf16> bias = WholeNumbers(static_cast<size_t>(g.columns), generator);
    const NaivelyPooled pooled = PoolNaively(g, operands.in);
    std::vector<bf16> expected(operands.out.size());
    const auto device = testing::MakeHostCudaDevice();
    (*AsCuda(*device).Plan(dense))
        ->Run({.a = pooled.values.data(),
               .b = operands.weights.data(),
               .d = expected.data(),
               .bias = bias.data()});
    const auto check = [&](const Block block, int tile_columns) {
      std::fill(operands.out.begin(), operands.out.end(), bf16{kPoison});
      std::vector<uint8_t> positions(pooled.positions.size(), 0xFF);
      operands.positions = positions.data();
      Epilogue e;
      e.out = operands.out.data();
      e.bias = bias.data();
      e.relu = true;
      for (int i = 0; i < Blocks(g, tile_columns); ++i) block(g, operands, e, i);
      EXPECT_TRUE(SameBits(operands.out, expected)) << tile_columns;
      EXPECT_EQ(positions, pooled.positions) << tile_columns;
    };
    check(BlockSm80<false, 64, true>, 64);
    check(BlockSm80<false, 128, true>, 128);
  }
}

}  // namespace
}  // namespace deeper::conv
