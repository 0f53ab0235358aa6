// The index math of the tensor core convolutions, by itself and at work: blocks of both kernels are emulated,
// instruction by instruction as the PTX ISA describes them, with the functions that the kernels use. What
// remains for a GPU to show is that barriers and instructions do as they are described.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <ostream>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "kernels/cuda/plans/cuda_problem.h"
#include "kernels/cuda/tensor_core/conv_pool_tiling.h"
#include "kernels/cuda/tensor_core/conv_tensor_core.h"
#include "kernels/cuda/tensor_core/conv_tiling.h"
#include "tests/kernels/cuda/tensor_core/mma_emulation.h"
#include "tests/kernels/googlenet_shapes.h"
#include "tests/kernels/test_device.h"

namespace deeper::conv {
namespace {

using ::testing::Each;
using Pass = ConvolutionProblem::Pass;

constexpr int kTiles[] = {64, 128, 192};

ConvolutionProblem Problem(Pass pass, int64_t n, int64_t h, int64_t w, int64_t c, int64_t k, int64_t kernel) {
  ConvolutionProblem p = {.pass = pass, .n = n, .h = h, .w = w, .c = c, .k = k, .kernel = kernel};
  p.pad = kernel / 2;
  return p;
}

// GoogLeNet's at three batches, and odd ones.
std::vector<Gemm> Gemms() {
  std::vector<Gemm> gemms;
  for (const Pass pass : {Pass::kForward, Pass::kBackwardData}) {
    for (const int64_t n : {1, 3, 256}) {
      for (const auto& s : testing::kGoogLeNetShapes) {
        gemms.push_back(tensor_core::GemmOf(Problem(pass, n, s.size, s.size, s.c, s.k, s.kernel)));
      }
    }
    ConvolutionProblem pitched = Problem(pass, 2, 5, 9, 40, 72, 3);
    pitched.x_pitch = 56;
    pitched.y_pitch = 80;
    gemms.push_back(tensor_core::GemmOf(pitched));
    gemms.push_back(tensor_core::GemmOf(Problem(pass, 1, 1, 1, 8, 8, 5)));
    gemms.push_back(tensor_core::GemmOf(Problem(pass, 130, 1, 2, 8, 200, 7)));
    gemms.push_back(tensor_core::GemmOf(Problem(pass, 2, 13, 11, 136, 24, 1)));
  }
  return gemms;
}

std::string Words(const Gemm& g) {
  return std::to_string(g.images) + "x" + std::to_string(g.height) + "x" + std::to_string(g.width) +
         ", depth " + std::to_string(g.depth) + ", columns " + std::to_string(g.columns) + ", kernel " +
         std::to_string(g.kernel) + (g.backward ? ", backward" : "");
}

// The first and the last tile, and some between.
std::vector<Tile> SomeTiles(const Gemm& g, int tile_columns) {
  std::vector<Tile> tiles;
  const int blocks = Blocks(g, tile_columns);
  for (const int block : std::set<int>{0, blocks / 3, blocks / 2, blocks - 1}) {
    tiles.push_back(TileOf(g, tile_columns, block));
  }
  return tiles;
}

TEST(ConvTilingTest, TilesCoverAllPixelsAndColumnsOnce) {
  for (const Gemm& g : Gemms()) {
    for (const int tile_columns : kTiles) {
      std::set<std::pair<int, int>> seen;
      for (int block = 0; block < Blocks(g, tile_columns); ++block) {
        const Tile tile = TileOf(g, tile_columns, block);
        ASSERT_EQ(tile.pixel, tile.index * kTilePixels);
        ASSERT_EQ(tile.column % tile_columns, 0);
        ASSERT_LT(tile.pixel, g.pixels());
        ASSERT_LT(tile.column, g.columns);
        ASSERT_TRUE(seen.insert({tile.pixel, tile.column}).second);
      }
      const int down = (g.pixels() + kTilePixels - 1) / kTilePixels;
      const int across = (g.columns + tile_columns - 1) / tile_columns;
      ASSERT_EQ(seen.size(), static_cast<size_t>(down * across)) << Words(g);
    }
  }
}

TEST(ConvTilingTest, StepsCoverAllTapsAndChannelsOnce) {
  for (const Gemm& g : Gemms()) {
    std::vector<int> seen(static_cast<size_t>(g.taps() * g.depth));
    for (int index = 0; index < g.steps(); ++index) {
      const Step step = StepAt(g, index);
      ASSERT_GE(step.slices, 1);
      ASSERT_LE(step.slices * kSliceDepth, kStepDepth);
      // What the slices leave out of a step is no channel.
      const bool last = step.depth + kStepDepth >= g.depth;
      ASSERT_TRUE(last || step.slices * kSliceDepth == kStepDepth);
      for (int d = step.depth; d < std::min(g.depth, step.depth + step.slices * kSliceDepth); ++d) {
        ++seen[static_cast<size_t>((step.row * g.kernel + step.column) * g.depth + d)];
      }
      const int tap = step.row * g.kernel + step.column;
      ASSERT_EQ(step.weight_tap, g.backward ? g.taps() - 1 - tap : tap);
    }
    EXPECT_THAT(seen, Each(1)) << Words(g);
  }
}

TEST(ConvTilingTest, CopiesOfPixelsReadWhatTheTapMeets) {
  for (const Gemm& g : Gemms()) {
    for (const Tile& tile : SomeTiles(g, 64)) {
      for (int index = 0; index < g.steps(); index += std::max(1, g.steps() / 7)) {
        const Step step = StepAt(g, index);
        std::vector<int> written(kPixelBytes / 16);
        for (int thread = 0; thread < kCopyThreads; ++thread) {
          Source sources[kPixelCopies];
          for (int i = 0; i < kPixelCopies; ++i) sources[i] = SourceOf(g, tile, thread, i);
          CopyPixels(g, sources, step, thread, [&](int to, int64_t from, bool inside) {
            ++written[static_cast<size_t>(to / 16)];
            const int row = to / kRowBytes, channel = step.depth + ((to / 16 % 8) ^ (row % 8)) * 8;
            const Pixel at = PixelAt(g, tile.pixel + row);
            const int y = at.row + step.row - g.pad(), x = at.column + step.column - g.pad();
            const bool expected = tile.pixel + row < g.pixels() && y >= 0 && y < g.height && x >= 0 &&
                                  x < g.width && channel < g.depth;
            ASSERT_EQ(inside, expected) << Words(g);
            if (!inside) return;
            ASSERT_EQ(from, ((int64_t{at.image} * g.height + y) * g.width + x) * g.in_pitch + channel)
                << Words(g);
            ASSERT_LE(from % g.in_pitch + kChunk, g.depth) << Words(g);
          });
        }
        ASSERT_THAT(written, Each(1));
      }
    }
  }
}

template <int kColumns>
void CheckCopiesOfWeights(const Gemm& g) {
  for (const Tile& tile : SomeTiles(g, kColumns)) {
    for (int index = 0; index < g.steps(); index += std::max(1, g.steps() / 7)) {
      const Step step = StepAt(g, index);
      std::vector<int> written(kColumns * kRowBytes / 16);
      std::vector<int64_t> at(written.size(), -1);  // -1: zeros
      for (int thread = 0; thread < kCopyThreads; ++thread) {
        CopyWeights<kColumns>(g, tile, step, thread, [&](int to, int64_t from, bool inside) {
          const auto chunk = static_cast<size_t>((to - kPixelBytes) / 16);
          ++written[chunk];
          if (inside) at[chunk] = from;
        });
      }
      ASSERT_THAT(written, Each(1));
      for (int column = 0; column < kColumns; ++column) {
        for (int depth = 0; depth < kStepDepth; ++depth) {
          const int offset = WeightOffset(g.backward, column, depth);
          const int c = tile.column + column, d = step.depth + depth;
          int64_t expected = -1;
          if (c < g.columns && d < g.depth) {
            expected = g.backward ? (int64_t{d} * g.taps() + step.weight_tap) * g.columns + c
                                  : (int64_t{c} * g.taps() + step.weight_tap) * g.depth + d;
          }
          const int64_t chunk = at[static_cast<size_t>(offset / 16)];
          ASSERT_EQ(chunk < 0 ? -1 : chunk + offset % 16 / 2, expected) << Words(g);
        }
      }
    }
  }
}

TEST(ConvTilingTest, CopiesOfWeightsReadTheTapTheyAreFor) {
  for (const Gemm& g : Gemms()) {
    if (g.images != 3 && g.kernel != 1) continue;  // w knows no images
    CheckCopiesOfWeights<64>(g);
    CheckCopiesOfWeights<128>(g);
  }
}

// The 8 rows of a matrix lie in different groups of 4 banks, and so do the 8 chunks of a row.
TEST(ConvTilingTest, NoBankConflicts) {
  const auto check = [](const auto& offset) {
    for (int first = 0; first < kLanes; first += 8) {
      std::set<int> groups;
      for (int lane = first; lane < first + 8; ++lane) {
        ASSERT_EQ(offset(lane) % 16, 0);
        groups.insert(offset(lane) / 16 % 8);
      }
      ASSERT_EQ(groups.size(), 8u);
    }
  };
  for (int slice = 0; slice < 4; ++slice) {
    for (int row = 0; row < kTilePixels; row += 16) {
      check([&](int lane) { return PixelMatrixOffset(row, slice, lane); });
    }
    for (int column = 0; column < 128; column += 16) {
      for (const bool backward : {false, true}) {
        check([&](int lane) { return WeightMatrixOffset(backward, column, slice, lane); });
      }
    }
  }
  check([](int lane) { return RowOffset(lane / 8, lane % 8 * kChunk); });  // copies
}

// ---- Instructions -------------------------------------------------------------------------------------

// Operands as vectors: whoever reads beyond them is found.
struct Operands {
  std::vector<bf16> in, weights, mask, out;
  uint8_t* positions = nullptr;  // of maxima, where they are pooled
};

// PTX ISA, "Swizzling modes", 128 bytes: bits 4 to 6 of an address are exchanged by its bits 7 to 9.
uint32_t Swizzled(uint32_t address) {
  return address ^ ((address >> 7 & 7) << 4);
}

void WriteBox(Shared& shared, uint32_t to, int row, int element, bf16 value) {
  const uint32_t address = Swizzled(to + row * 128 + element * 2);
  std::memcpy(&shared.at(address - kBase), &value, sizeof value);
}

// PTX ISA, "Im2col mode", and cuTensorMapEncodeIm2col: the box takes pixels in the order of their rows within
// the bounding box, which goes from the lower corner to the last pixel plus the upper corner, then of images;
// each is read where the offsets shift it. Outside the tensor there are zeros.
void LoadPixels(Shared& shared, uint32_t to, const Gemm& g, const Operands& operands, PixelBox box,
                const Step& step) {
  for (int i = 0; i < kTilePixels; ++i) {
    const int row = box.row + step.row, column = box.column + step.column;
    for (int c = 0; c < kStepDepth; ++c) {
      bf16 value = {0};
      if (box.image < g.images && row >= 0 && row < g.height && column >= 0 && column < g.width &&
          box.channel + c < g.depth) {
        const int64_t pixel = (int64_t{box.image} * g.height + row) * g.width + column;
        value = operands.in.at(static_cast<size_t>(pixel * g.in_pitch + box.channel + c));
      }
      WriteBox(shared, to, i, c, value);
    }
    if (++box.column <= g.width - 1 + UpperCorner(g)) continue;
    box.column = LowerCorner(g);
    if (++box.row <= g.height - 1 + UpperCorner(g)) continue;
    box.row = LowerCorner(g);
    ++box.image;
  }
}

// PTX ISA, "Tiled mode": 64 channels of one tap of 64 filters.
void LoadWeights(Shared& shared, uint32_t to, const Gemm& g, const Operands& operands, const WeightBox& box) {
  const int channels = g.backward ? g.columns : g.depth, filters = g.backward ? g.depth : g.columns;
  for (int row = 0; row < 64; ++row) {
    for (int element = 0; element < 64; ++element) {
      const int filter = box.filter + row, channel = box.channel + element;
      bf16 value = {0};
      if (filter < filters && channel < channels) {
        value = operands.weights.at(
            static_cast<size_t>((int64_t{filter} * g.taps() + box.tap) * channels + channel));
      }
      WriteBox(shared, to, row, element, value);
    }
  }
}

// PTX ISA, "Asynchronous warpgroup level matrix instructions", strides and canonical layouts for a swizzle of
// 128 bytes: where a matrix descriptor says that an element lies. `major` counts along the contiguous side.
struct MatrixDescriptor {
  explicit MatrixDescriptor(uint64_t bits)
      : start(static_cast<uint32_t>(bits & 0x3FFF) << 4),
        leading(static_cast<uint32_t>(bits >> 16 & 0x3FFF) << 4),
        stride(static_cast<uint32_t>(bits >> 32 & 0x3FFF) << 4) {
    EXPECT_EQ(bits >> 62, 1u);                                        // a swizzle of 128 bytes
    EXPECT_EQ(bits >> 49 & 7, 0u);                                    // base offset
    EXPECT_EQ(bits & 0x3FFFC000C000C000 & ~(uint64_t{7} << 49), 0u);  // nothing else
  }
  // K-major: rows of m or n by 16 of depth.
  uint32_t Rows(int row, int depth) const {
    return Swizzled(start + row / 8 * stride + row % 8 * 128 + depth * 2);
  }
  // MN-major: 64 of n, then the next 64; 8 of depth, then the next 8.
  uint32_t Columns(int column, int depth) const {
    return Swizzled(start + column / 64 * leading + depth / 8 * stride + depth % 8 * 128 + column % 64 * 2);
  }
  uint32_t start, leading, stride;
};

TEST(ConvTilingTest, DescriptorsDescribeWhereThingsLie) {
  for (const uint32_t stage : {0u, 24 * 1024u, 3 * 40 * 1024u}) {
    for (int slice = 0; slice < 4; ++slice) {
      for (int depth = 0; depth < kSliceDepth; ++depth) {
        const int d = slice * kSliceDepth + depth;
        for (int row = 0; row < kTilePixels; ++row) {
          const MatrixDescriptor a(PixelDescriptor(stage, row / 64, slice));
          ASSERT_EQ(a.Rows(row % 64, depth), stage + RowOffset(row, d));
        }
        for (int column = 0; column < 192; ++column) {
          const uint32_t weights = stage + kPixelBytes;
          const MatrixDescriptor forward(WeightDescriptor(false, stage, slice)),
              backward(WeightDescriptor(true, stage, slice));
          ASSERT_EQ(forward.Rows(column, depth), weights + WeightOffset(false, column, d));
          ASSERT_EQ(backward.Columns(column, depth), weights + WeightOffset(true, column, d));
        }
      }
    }
  }
}

// ---- Blocks -------------------------------------------------------------------------------------------

// As StoreWarp of conv_epilogue.h.
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

// As ConvSm80.
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
        PoolPixels(g, tile, operands.in.data(), step, thread, tile.column == 0 ? operands.positions : nullptr,
                   [&shared](int to, const Chunk& chunk) {
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

// As ConvSm90.
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
          // the rows from 16 w on; of these lane l has l / 4 and the one 8 below.
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

// Runs every block of the kernel, and the naive convolution; between the slices, memory is poisoned for
// reading and must stay as it is when writing.
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
  // The naive convolution sums before it rounds, the kernels after.
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

// Pixels over several tiles and images, columns over several tiles, depths of one slice to several steps.
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

// The first maximum of the 3x3 neighbours in scan order; a NaN is larger than everything.
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
      const Pixel pixel = PixelAt(g, index);
      const Pooled pooled = PoolChunk(g, in.data(), {pixel.row, pixel.column, index * g.in_pitch}, channel);
      for (int j = 0; j < kChunk; ++j) {
        const auto i = static_cast<size_t>(index * g.depth + channel + j);
        ASSERT_EQ(pooled.values.v[j].bits, expected.values[i].bits) << index << ", " << channel + j;
        ASSERT_EQ(pooled.positions.v[j], expected.positions[i]) << index << ", " << channel + j;
      }
    }
  }
}

TEST(PooledConvTest, Forward) {
  // Three tiles of pixels, depths of one step and of two, columns of one tile of 64 and of two.
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

// ---- Choosing -----------------------------------------------------------------------------------------

TEST(TensorCoreChoiceTest, TilesWithTheLeastPaddingFirst) {
  const auto names = [](int compute_capability, int64_t filters) {
    const auto choice =
        tensor_core::Choose(compute_capability, Problem(Pass::kForward, 1, 8, 8, 16, filters, 3));
    EXPECT_TRUE(choice.ok()) << choice.status();
    std::vector<std::string> found;
    for (size_t i = 0; i < (*choice)->size(); ++i) found.push_back(*(*(*choice)->Build(i))->Serialize());
    return found;
  };
  using ::testing::ElementsAre;
  EXPECT_THAT(names(90, 192), ElementsAre("deeper sm90 128x192", "deeper sm90 128x64", "deeper sm90 128x128",
                                          "deeper sm80 128x64", "deeper sm80 128x128"));
  EXPECT_THAT(names(90, 256), ElementsAre("deeper sm90 128x128", "deeper sm90 128x64", "deeper sm90 128x192",
                                          "deeper sm80 128x128", "deeper sm80 128x64"));
  EXPECT_THAT(names(80, 32), ElementsAre("deeper sm80 128x64", "deeper sm80 128x128"));
  EXPECT_THAT(names(120, 32), ElementsAre("deeper sm80 128x64", "deeper sm80 128x128"));
}

TEST(TensorCoreChoiceTest, PooledInputsHaveKernelsOfTheirOwn) {
  const auto names = [](Pass pass, int64_t filters) {
    ConvolutionProblem problem = Problem(pass, 3, 14, 14, 480, filters, 1);
    problem.pool_x = true;
    const auto choice = tensor_core::Choose(90, problem);
    EXPECT_TRUE(choice.ok()) << choice.status();
    std::vector<std::string> found;
    for (size_t i = 0; i < (*choice)->size(); ++i) {
      found.push_back(*(*(*choice)->Build(i))->Serialize());
      EXPECT_TRUE((*choice)->Load(found.back()).ok());
    }
    return found;
  };
  using ::testing::ElementsAre;
  EXPECT_THAT(names(Pass::kForward, 64),
              ElementsAre("deeper sm80 pooled 128x64", "deeper sm80 pooled 128x128"));
  EXPECT_THAT(names(Pass::kForward, 128),
              ElementsAre("deeper sm80 pooled 128x128", "deeper sm80 pooled 128x64"));
  EXPECT_THAT(names(Pass::kBackwardWeights, 64),
              ElementsAre("deeper sm80 pooled gradient 64x64", "deeper sm80 pooled gradient 128x64"));
  EXPECT_THAT(names(Pass::kBackwardWeights, 128),
              ElementsAre("deeper sm80 pooled gradient 128x64", "deeper sm80 pooled gradient 64x64"));
}

TEST(TensorCoreChoiceTest, AKernelIsLoadedFromItsText) {
  ConvolutionProblem problem = Problem(Pass::kBackwardData, 3, 28, 28, 96, 128, 3);
  problem.mask_dx = true;
  const auto choice = tensor_core::Choose(90, problem);
  ASSERT_TRUE(choice.ok()) << choice.status();
  const auto loaded = (*choice)->Load("deeper sm90 128x64");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(*(*loaded)->Serialize(), "deeper sm90 128x64");
  EXPECT_TRUE((*loaded)->needs_check());
  EXPECT_EQ((*loaded)->workspace_bytes(), 19u * 96 * sizeof(float));  // 2352 pixels are 19 tiles
  for (const char* bad : {"", "{}", "deeper sm90 128x80", "deeper sm70 128x64"}) {
    EXPECT_EQ((*choice)->Load(bad).status().code(), absl::StatusCode::kNotFound) << bad;
  }
}

TEST(TensorCoreChoiceTest, SaysWhatItDoesNotDo) {
  const ConvolutionProblem good = Problem(Pass::kForward, 2, 8, 8, 16, 32, 3);
  ASSERT_TRUE(tensor_core::Choose(80, good).ok());
  const auto refuses = [](int compute_capability, const ConvolutionProblem& problem, const char* reason) {
    const absl::Status status = tensor_core::Choose(compute_capability, problem).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << ToString(problem);
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(ToString(problem)));
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(reason));
  };
  refuses(75, good, "compute capability 8.0");
  ConvolutionProblem problem = good;
  problem.dtype = DType::kF32;
  refuses(90, problem, "bf16");
  problem = good;
  problem.pass = Pass::kBackwardWeights;
  refuses(90, problem, "no gradients of weights");
  problem.pool_x = true;
  refuses(90, problem, "pooled inputs of 1x1 only");
  problem.kernel = 1;
  problem.pad = 0;
  EXPECT_TRUE(tensor_core::Choose(90, problem).ok());
  problem.pass = Pass::kBackwardData;
  refuses(90, problem, "pooled inputs of 1x1 only");
  problem.pass = Pass::kForward;
  problem.dtype = DType::kF32;
  refuses(90, problem, "bf16");
  problem = good;
  problem.stride = 2;
  refuses(90, problem, "stride");
  for (const auto& [kernel, pad] : {std::pair(3, 0), std::pair(4, 2), std::pair(257, 128)}) {
    problem = good;
    problem.kernel = kernel;
    problem.pad = pad;
    refuses(90, problem, "odd filters");
  }
  for (int64_t ConvolutionProblem::*field : {&ConvolutionProblem::c, &ConvolutionProblem::k,
                                             &ConvolutionProblem::x_pitch, &ConvolutionProblem::y_pitch}) {
    problem = good;
    problem.*field = 36;
    refuses(90, problem, "multiples of 8");
  }
  problem = good;
  problem.n = int64_t{1} << 26;
  refuses(90, problem, "pixels");
}

TEST(TensorCoreChoiceTest, WantsAlignedOperands) {
  const auto choice = tensor_core::Choose(80, Problem(Pass::kForward, 2, 8, 8, 16, 32, 3));
  ASSERT_TRUE(choice.ok());
  const auto algorithm = (*choice)->Build(0);
  alignas(16) char memory[32] = {};
  PlanOperands operands = {.a = memory + 2, .b = memory, .d = memory};
  EXPECT_EQ((*algorithm)->Enqueue(operands, {}).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace deeper::conv
