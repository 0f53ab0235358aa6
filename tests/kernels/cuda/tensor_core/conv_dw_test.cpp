// The gradient of the weights of a 3x3 convolution on tensor cores (conv_dw_sm90.cu): its index math, and
// emulated blocks.
#include "kernels/cuda/tensor_core/conv_dw_tiling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/cuda/plans/cuda_problem.h"
#include "kernels/cuda/tensor_core/conv_kernels.h"
#include "kernels/cuda/tensor_core/conv_tensor_core.h"
#include "tests/kernels/cuda/tensor_core/conv_problem.h"
#include "tests/kernels/cuda/tensor_core/mma_emulation.h"
#include "tests/kernels/cuda/tensor_core/pipeline_emulation.h"
#include "tests/kernels/googlenet_shapes.h"

namespace deeper::conv {
namespace {

using ::testing::Each;
using Pass = ConvolutionProblem::Pass;

ConvolutionProblem Slices(int64_t n, int64_t h, int64_t w, int64_t c, int64_t k) {
  ConvolutionProblem p = Problem(Pass::kBackwardWeights, n, h, w, c, k, 3);
  p.x_pitch = c + 40;
  p.y_pitch = k + 24;
  return p;
}

Gemm GemmOf(const ConvolutionProblem& problem) {
  Gemm g = tensor_core::GemmOf(problem);
  g.across = kDwTaps;
  return g;
}

// Maps with few and many pixels, tiles with and without channels and filters that do not exist.
std::vector<ConvolutionProblem> SmallProblems() {
  return {Slices(3, 7, 7, 16, 24),    Slices(2, 9, 6, 24, 72),  Slices(1, 6, 5, 144, 200),
          Slices(131, 1, 1, 8, 8),    Slices(1, 3, 50, 64, 64), Slices(1, 1, 1, 136, 8),
          Slices(1, 12, 13, 112, 128)};
}

std::vector<ConvolutionProblem> GoogLeNet(int64_t images) {
  std::vector<ConvolutionProblem> problems;
  for (const testing::ConvolutionShape& s : testing::kGoogLeNetShapes) {
    if (s.kernel == 3) problems.push_back(Slices(images, s.size, s.size, s.c, s.k));
  }
  return problems;
}

// ---- Index math ---------------------------------------------------------------------------------------

TEST(WeightGradientTest, BlocksCoverAllStepsOfAllTilesOnce) {
  std::vector<ConvolutionProblem> problems = SmallProblems();
  for (const int64_t images : {1, 3, 256}) {
    for (const ConvolutionProblem& problem : GoogLeNet(images)) problems.push_back(problem);
  }
  for (const ConvolutionProblem& problem : problems) {
    SCOPED_TRACE(ToString(problem));
    const Gemm g = GemmOf(problem);
    const int steps = (g.images * g.height * (g.width + 1) + 127) / 128;
    for (const int channels : DwChannels::kAll) {
      const DwTiles tiles = DwTilesOf(g, channels);
      ASSERT_LE(tiles.blocks(), 2 * kDwSms);
      ASSERT_LT(DwPartialSums(g, channels) * sizeof(float), 64u << 20);
      std::map<std::tuple<int, int, int>, std::vector<int>> seen;
      for (int block = 0; block < tiles.blocks(); ++block) {
        const DwTile tile = DwTileOf(g, tiles, channels, block);
        ASSERT_EQ(tile.first_place, tile.split * tiles.steps * 128);
        ASSERT_GE(tile.steps, 1);
        ASSERT_LT(tile.split, tiles.splits);
        ASSERT_TRUE(tile.filter % 64 == 0 && tile.filter < g.columns);
        ASSERT_TRUE(tile.channel % channels == 0 && tile.channel < g.depth);
        auto& of_tile = seen[{tile.filter, tile.row, tile.channel}];
        of_tile.resize(static_cast<size_t>(steps));
        for (int i = 0; i < tile.steps; ++i) ++of_tile.at(static_cast<size_t>(tile.first_place / 128 + i));
      }
      ASSERT_EQ(seen.size(), static_cast<size_t>(CeilDiv(g.columns, 64) * 3 * CeilDiv(g.depth, channels)));
      for (const auto& [tile, counts] : seen) ASSERT_THAT(counts, Each(1));
    }
  }
}

// With the channels of the first kernel that the tuner tries.
TEST(WeightGradientTest, FewSmsHaveNoBlock) {
  for (const ConvolutionProblem& problem : GoogLeNet(256)) {
    const Gemm g = GemmOf(problem);
    const int channels = g.depth <= 128 ? g.depth : g.depth / 2;
    const DwTiles tiles = DwTilesOf(g, channels);
    EXPECT_GE(tiles.blocks(), 0.8 * tiles.rounds() * kDwSms) << ToString(problem);
  }
}

TEST(WeightGradientTest, DescriptorsDescribeWhereThingsLie) {
  const uint32_t stage = 3 * 50 * 1024;
  for (int place = 0; place < kTilePixels; ++place) {
    const int warpgroup = place / 64, slice = place % 64 / 16, k = place % 16;
    const MatrixDescriptor dy(DyDescriptor(stage, warpgroup, slice));
    for (int filter = 0; filter < kTileFilters; ++filter) {
      ASSERT_EQ(dy.Columns(filter, k), stage + RowOffset(place, filter));
    }
    for (int tap = 0; tap < kDwTaps; ++tap) {
      const MatrixDescriptor x(XDescriptor(stage, warpgroup, tap, slice));
      for (int channel = 0; channel < 128; ++channel) {
        ASSERT_EQ(x.Columns(channel, k),
                  stage + DwBoxOffset(channel / 64) + RowOffset(place + tap, channel % 64));
      }
    }
  }
}

// ---- Emulation ----------------------------------------------------------------------------------------

// The sums of a block, [filter][tap][channel] of its tile: equivalent of WeightGradientSm90.
template <int kChannels>
std::vector<float> Block(const Gemm& g, const DwTile& tile, const DwBlock::Elements& x,
                         const DwBlock::Elements& dy) {
  const Recording recording = RecordDw<kChannels>(g, tile, kBase);
  DwBlock block(recording, g, kChannels, x, dy);
  block.Run();
  std::vector<float> sums(kTileFilters * kDwTaps * kChannels);
  for (size_t i = 0; i < sums.size(); ++i) {
    const size_t channel = i % kChannels, tap = i / kChannels % kDwTaps, filter = i / kChannels / kDwTaps;
    const size_t at = (tap * kTileFilters + filter) * kChannels + channel;
    sums[i] = block.sums()[at] + block.sums()[sums.size() + at];
  }
  return sums;
}

// By definition, from the pixels of the tile's places.
template <class Number>
struct Naive {
  Naive(const Gemm& g, const DwTile& tile, int channels, const DwBlock::Elements& x,
        const DwBlock::Elements& dy)
      : sums(static_cast<size_t>(kTileFilters * kDwTaps * channels)), sizes(sums) {
    const int filters = std::min(kTileFilters, g.columns - tile.filter),
              real_channels = std::min(channels, g.depth - tile.channel);
    for (int i = 0; i < tile.steps * kTilePixels; ++i) {
      const int place = tile.first_place + i, row_of_all = place / (g.width + 1);
      const int column = place % (g.width + 1), row = row_of_all % g.height;
      if (row_of_all >= g.images * g.height || column == g.width) continue;
      const int64_t pixel = int64_t{row_of_all} * g.width + column;
      for (int tap = 0; tap < kDwTaps; ++tap) {
        const int down = tile.row - 1, right = tap - 1;
        if (row + down < 0 || row + down >= g.height || column + right < 0 || column + right >= g.width)
          continue;
        std::vector<Number> values;
        for (int c = 0; c < real_channels; ++c) {
          const int64_t at = (pixel + down * g.width + right) * g.in_pitch + tile.channel + c;
          values.push_back(Number{ToFloat(x(static_cast<size_t>(at)))});
        }
        for (int k = 0; k < filters; ++k) {
          const Number d{ToFloat(dy(static_cast<size_t>(pixel * g.out_pitch + tile.filter + k)))};
          const auto first = static_cast<size_t>((k * kDwTaps + tap) * channels);
          for (size_t c = 0; c < values.size(); ++c) {
            sums[first + c] += d * values[c];
            sizes[first + c] += std::abs(d * values[c]);
          }
        }
      }
    }
  }
  std::vector<Number> sums, sizes;
};

// The elements of a tensor that is not in memory. What is between the slices is a NaN.
struct Numbers {
  uint64_t seed;
  int64_t channels, pitch;
  bool whole;

  bf16 operator()(size_t index) const {
    if (static_cast<int64_t>(index) % pitch >= channels) return {kPoison};
    return HashedNumber(seed, index, whole);
  }
};

template <int kChannels>
void CheckBlock(const Gemm& g, const DwTile& tile, bool whole) {
  const DwBlock::Elements x = Numbers{1, g.depth, g.in_pitch, whole},
                          dy = Numbers{2, g.columns, g.out_pitch, whole};
  const std::vector<float> sums = Block<kChannels>(g, tile, x, dy);
  if (whole) {
    ASSERT_EQ(sums, Naive<float>(g, tile, kChannels, x, dy).sums);
    return;
  }
  const Naive<double> expected(g, tile, kChannels, x, dy);
  for (size_t i = 0; i < sums.size(); ++i) {
    ASSERT_NEAR(sums[i], expected.sums[i], std::ldexp(expected.sizes[i], -18)) << i;
  }
}

template <class Check, int... kChannels>
void ForEachKernel(Sizes<kChannels...>, const Check& check) {
  (check.template operator()<kChannels>(), ...);
}

TEST(WeightGradientTest, WholeNumbersAreExact) {
  ForEachKernel(DwChannels(), []<int kChannels>() {
    for (const ConvolutionProblem& problem : SmallProblems()) {
      SCOPED_TRACE(std::to_string(kChannels) + " channels, " + ToString(problem));
      const Gemm g = GemmOf(problem);
      const DwTiles tiles = DwTilesOf(g, kChannels);
      for (int block = 0; block < tiles.blocks(); ++block) {
        CheckBlock<kChannels>(g, DwTileOf(g, tiles, kChannels, block), true);
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
  });
}

// The gradient from the partial sums of all blocks, each of which must be written once.
template <int kChannels>
std::vector<float> Gradient(const Gemm& g, const DwBlock::Elements& x, const DwBlock::Elements& dy) {
  const DwTiles tiles = DwTilesOf(g, kChannels);
  std::vector<float> partial(static_cast<size_t>(DwPartialSums(g, kChannels)), NAN);
  for (int block = 0; block < tiles.blocks(); ++block) {
    const DwTile tile = DwTileOf(g, tiles, kChannels, block);
    const std::vector<float> sums = Block<kChannels>(g, tile, x, dy);
    for (int thread = 0; thread < 128; ++thread) {
      const int warp = thread / 32, lane = thread % 32;
      StorePartial<kChannels>(g, tile, warp, lane, [&](int64_t index, int tap, int eight, int i) {
        // PTX ISA, "Register fragments and shared memory matrix layouts", D of wgmma.m64nNk16.
        const int filter = warp * 16 + lane / 4 + i / 2 * 8, channel = eight * 8 + lane % 4 * 2;
        for (int j = 0; j < 2; ++j) {
          float& sum = partial.at(static_cast<size_t>(index + j));
          EXPECT_TRUE(std::isnan(sum)) << "written twice";
          sum = sums.at(static_cast<size_t>((filter * kDwTaps + tap) * kChannels + channel + j));
        }
      });
    }
  }
  std::vector<float> dw(static_cast<size_t>(g.columns * g.taps() * g.depth));
  for (size_t i = 0; i < partial.size(); ++i) dw[i % dw.size()] += partial[i];
  return dw;
}

TEST(WeightGradientTest, PartialSumsMakeTheGradient) {
  for (const ConvolutionProblem& problem : {Slices(3, 7, 7, 16, 24), Slices(1, 6, 5, 144, 200)}) {
    SCOPED_TRACE(ToString(problem));
    const Gemm g = GemmOf(problem);
    const DwBlock::Elements x = Numbers{1, g.depth, g.in_pitch, true},
                            dy = Numbers{2, g.columns, g.out_pitch, true};
    std::vector<float> expected;
    for (int i = 0; i < g.columns * 9 * g.depth; ++i) {
      const int k = i / g.depth / 9, down = i / g.depth % 9 / 3 - 1, right = i / g.depth % 3 - 1;
      float sum = 0;
      for (int pixel = 0; pixel < g.pixels(); ++pixel) {
        const int row = pixel / g.width % g.height + down, column = pixel % g.width + right;
        if (row < 0 || row >= g.height || column < 0 || column >= g.width) continue;
        const int64_t at = (int64_t{pixel} + down * g.width + right) * g.in_pitch + i % g.depth;
        sum +=
            ToFloat(x(static_cast<size_t>(at))) * ToFloat(dy(static_cast<size_t>(pixel * g.out_pitch + k)));
      }
      expected.push_back(sum);
    }
    ForEachKernel(DwChannels(), [&]<int kChannels>() {
      EXPECT_TRUE(Gradient<kChannels>(g, x, dy) == expected) << kChannels << " channels";
    });
  }
}

TEST(WeightGradientTest, RealNumbersAreClose) {
  ForEachKernel(DwChannels(), []<int kChannels>() {
    for (const ConvolutionProblem& problem : {Slices(1, 6, 5, 144, 200), Slices(2, 14, 14, 96, 64)}) {
      SCOPED_TRACE(std::to_string(kChannels) + " channels, " + ToString(problem));
      const Gemm g = GemmOf(problem);
      CheckBlock<kChannels>(g, DwTileOf(g, DwTilesOf(g, kChannels), kChannels, 1), false);
      if (::testing::Test::HasFatalFailure()) return;
    }
  });
}

// All blocks at batch 1 and 3; at 256, the last steps of the first, a middle, and the last block. By the
// kernel with GoogLeNet's channels. With $DEEPER_EMULATION=dw: all of it, in some minutes.
TEST(WeightGradientTest, BlocksOfGoogLeNetAreExact) {
  const char* const mode = std::getenv("DEEPER_EMULATION");
  const bool all = mode != nullptr && std::string(mode) == "dw";
  for (const int64_t images : {1, 3, 256}) {
    for (const ConvolutionProblem& problem : GoogLeNet(images)) {
      SCOPED_TRACE(ToString(problem));
      const Gemm g = GemmOf(problem);
      const int channels = g.depth <= 128 ? g.depth : g.depth / 2;
      int kernels = 0;
      ForEachKernel(DwChannels(), [&]<int kChannels>() {
        if (kChannels != channels) return;
        ++kernels;
        const DwTiles tiles = DwTilesOf(g, kChannels);
        for (int block = 0; block < tiles.blocks(); ++block) {
          DwTile tile = DwTileOf(g, tiles, kChannels, block);
          if (images == 256 && !all) {
            if (block != 0 && block != tiles.blocks() / 2 + 1 && block != tiles.blocks() - 1) continue;
            const int skipped = std::max(0, tile.steps - 7);
            tile.first_place += skipped * kTilePixels;
            tile.steps -= skipped;
          }
          CheckBlock<kChannels>(g, tile, true);
          if (::testing::Test::HasFatalFailure()) return;
        }
      });
      if (HasFatalFailure()) return;
      ASSERT_EQ(kernels, 1) << "no kernel has " << channels << " channels";
    }
  }
}

}  // namespace
}  // namespace deeper::conv
