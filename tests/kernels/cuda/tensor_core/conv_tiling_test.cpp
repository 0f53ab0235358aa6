// Tests the index math of the tensor core convolutions alone. conv_emulation_test.cpp uses it in whole
// blocks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/cuda/plans/cuda_problem.h"
#include "kernels/cuda/tensor_core/conv_tensor_core.h"
#include "kernels/cuda/tensor_core/conv_tiling.h"
#include "tests/kernels/cuda/tensor_core/bank_conflicts.h"
#include "tests/kernels/cuda/tensor_core/conv_problem.h"
#include "tests/kernels/cuda/tensor_core/mma_emulation.h"
#include "tests/kernels/cuda/tensor_core/wgmma_emulation.h"
#include "tests/kernels/googlenet_shapes.h"

namespace deeper::conv {
namespace {

using ::testing::Each;
using Pass = ConvolutionProblem::Pass;

constexpr int kTiles[] = {64, 128, 192};

// GoogLeNet's shapes at three batches, and unusual ones.
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

// The same with a row of taps per step, as on sm_90.
std::vector<Gemm> GemmsWithRows() {
  std::vector<Gemm> gemms = Gemms();
  for (const Gemm& g : Gemms()) {
    if (g.kernel == 1) continue;
    gemms.push_back(g);
    gemms.back().across = g.kernel;
  }
  return gemms;
}

std::string Words(const Gemm& g) {
  return std::to_string(g.images) + "x" + std::to_string(g.height) + "x" + std::to_string(g.width) +
         ", depth " + std::to_string(g.depth) + ", columns " + std::to_string(g.columns) + ", kernel " +
         std::to_string(g.kernel) + (g.backward ? ", backward" : "");
}

// Step number `index`, by its definition.
Step StepAt(const Gemm& g, int index) {
  const int per_tap = CeilDiv(g.depth, kStepDepth), tap = index / per_tap * g.across;
  const int depth = index % per_tap * kStepDepth;
  return {tap / g.kernel, tap % g.kernel, g.backward ? g.taps() - 1 - tap : tap, depth,
          CeilDiv(std::min(g.depth - depth, kStepDepth), kSliceDepth)};
}

// The first and the last tile, and several between.
std::vector<Tile> SomeTiles(const Gemm& g, int tile_columns) {
  std::vector<Tile> tiles;
  const int blocks = Blocks(g, tile_columns);
  for (const int block : std::set<int>{0, blocks / 3, blocks / 2, blocks - 1}) {
    tiles.push_back(TileOf(g, tile_columns, block));
  }
  return tiles;
}

TEST(ConvTilingTest, TilesCoverAllPixelsAndColumnsOnce) {
  for (const Gemm& g : GemmsWithRows()) {
    for (const int tile_columns : kTiles) {
      std::set<std::pair<int, int>> seen;
      for (int block = 0; block < Blocks(g, tile_columns); ++block) {
        const Tile tile = TileOf(g, tile_columns, block);
        ASSERT_EQ(tile.place, tile.index * kTilePixels);
        ASSERT_EQ(tile.column % tile_columns, 0);
        ASSERT_LT(tile.place, g.places());
        ASSERT_LT(tile.column, g.columns);
        ASSERT_TRUE(seen.insert({tile.place, tile.column}).second);
      }
      const int down = (g.places() + kTilePixels - 1) / kTilePixels;
      const int across = (g.columns + tile_columns - 1) / tile_columns;
      ASSERT_EQ(seen.size(), static_cast<size_t>(down * across)) << Words(g);
    }
  }
}

// In the order of their index, with `pad` places after each row.
TEST(ConvTilingTest, PlacesCoverAllPixelsOnce) {
  const auto check = []<int kAcross>(const Gemm& g) {
    int next = 0;
    for (int place = 0; place < g.pixel_tiles() * kTilePixels; ++place) {
      const int index = PixelIndex<kAcross>(g, place);
      if (index < 0) continue;
      ASSERT_EQ(index, next++) << Words(g);
      const Pixel pixel = PixelAt(g, place);
      ASSERT_EQ((pixel.image * g.height + pixel.row) * g.width + pixel.column, index) << Words(g);
    }
    EXPECT_EQ(next, g.pixels()) << Words(g);
  };
  for (const Gemm& g : GemmsWithRows()) {
    if (g.across == 1) check.operator()<1>(g);
    if (g.across == 3) check.operator()<3>(g);
    if (g.across == 5) check.operator()<5>(g);
  }
}

TEST(ConvTilingTest, StepsCoverAllTapsAndChannelsOnce) {
  for (const Gemm& g : GemmsWithRows()) {
    std::vector<int> seen(static_cast<size_t>(g.taps() * g.depth));
    Step next = FirstStep(g);
    for (int index = 0; index < g.steps(); ++index, Advance(g, next)) {
      const Step step = StepAt(g, index);
      ASSERT_EQ(std::tie(step.row, step.column, step.weight_tap, step.depth, step.slices),
                std::tie(next.row, next.column, next.weight_tap, next.depth, next.slices));
      ASSERT_GE(step.slices, 1);
      ASSERT_LE(step.slices * kSliceDepth, kStepDepth);
      // A slice that the step omits contains no channel.
      const bool last = step.depth + kStepDepth >= g.depth;
      ASSERT_TRUE(last || step.slices * kSliceDepth == kStepDepth);
      for (int i = 0; i < g.across; ++i) {
        const int tap = step.row * g.kernel + step.column + i;
        for (int d = step.depth; d < std::min(g.depth, step.depth + step.slices * kSliceDepth); ++d) {
          ++seen[static_cast<size_t>(tap * g.depth + d)];
        }
        ASSERT_EQ(WeightBoxOf(g, {}, step, i, 0).tap, g.backward ? g.taps() - 1 - tap : tap);
      }
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
            const Pixel at = PixelAt(g, tile.place + row);
            const int y = at.row + step.row - g.pad(), x = at.column + step.column - g.pad();
            const bool expected = tile.place + row < g.pixels() && y >= 0 && y < g.height && x >= 0 &&
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
    if (g.images != 3 && g.kernel != 1) continue;  // w does not depend on the number of images
    CheckCopiesOfWeights<64>(g);
    CheckCopiesOfWeights<128>(g);
  }
}

// The 8 rows of a matrix are in different groups of 4 banks, and so are the 8 chunks of a row.
TEST(ConvTilingTest, NoBankConflicts) {
  for (int slice = 0; slice < 4; ++slice) {
    for (int row = 0; row < kTilePixels; row += 16) {
      ExpectNoBankConflicts([&](int lane) { return PixelMatrixOffset(row, slice, lane); });
    }
    for (int column = 0; column < 128; column += 16) {
      for (const bool backward : {false, true}) {
        ExpectNoBankConflicts([&](int lane) { return WeightMatrixOffset(backward, column, slice, lane); });
      }
    }
  }
  ExpectNoBankConflicts([](int lane) { return RowOffset(lane / 8, lane % 8 * kChunk); });  // copies
}

TEST(ConvTilingTest, DescriptorsDescribeWhereThingsLie) {
  for (const uint32_t stage : {0u, 24 * 1024u, 3 * 40 * 1024u}) {
    for (int slice = 0; slice < 4; ++slice) {
      for (int depth = 0; depth < kSliceDepth; ++depth) {
        const int d = slice * kSliceDepth + depth;
        for (int row = 0; row < kTilePixels; ++row) {
          for (int tap = 0; tap < 5; ++tap) {
            const MatrixDescriptor a(PixelDescriptor(stage, row / 64, tap, slice));
            ASSERT_EQ(a.Rows(row % 64, depth), stage + RowOffset(row + tap, d));
          }
        }
        for (int column = 0; column < 224; ++column) {
          const uint32_t weights = stage + StepPixelBytes(3) + TapBytes(false, 112);
          const MatrixDescriptor forward(WeightDescriptor(false, weights, slice)),
              backward(WeightDescriptor(true, weights, slice));
          ASSERT_EQ(forward.Rows(column, depth), weights + WeightOffset(false, column, d));
          ASSERT_EQ(backward.Columns(column, depth), weights + WeightOffset(true, column, d));
        }
      }
    }
  }
}

}  // namespace
}  // namespace deeper::conv
