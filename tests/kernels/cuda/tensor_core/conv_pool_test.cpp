// The gradient of the weights of a convolution of maxima. Tests its index math alone and in emulated blocks
// of the kernel.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "kernels/cuda/plans/cuda_problem.h"
#include "kernels/cuda/tensor_core/conv_pipeline.h"
#include "kernels/cuda/tensor_core/conv_pool_tiling.h"
#include "kernels/cuda/tensor_core/conv_tensor_core.h"
#include "tests/kernels/cuda/tensor_core/mma_emulation.h"
#include "tests/kernels/googlenet_shapes.h"
#include "tests/kernels/test_device.h"

namespace deeper::conv {
namespace {

using ::testing::Each;

constexpr int kTiles[] = {64, 128};  // filters

ConvolutionProblem Problem(int64_t n, int64_t h, int64_t w, int64_t c, int64_t k) {
  ConvolutionProblem p = {.n = n, .h = h, .w = w, .c = c, .k = k};
  p.pass = ConvolutionProblem::Pass::kBackwardWeights;
  p.pool_x = true;
  return p;
}

// GoogLeNet's shapes at several batches, and unusual ones.
std::vector<ConvolutionProblem> Problems(const std::vector<int64_t>& batches) {
  std::vector<ConvolutionProblem> problems;
  for (const int64_t n : batches) {
    for (const auto& s : testing::kPoolBranches) problems.push_back(Problem(n, s.size, s.size, s.c, s.k));
  }
  problems.push_back(Problem(1, 1, 1, 8, 8));
  problems.push_back(Problem(67, 1, 2, 72, 136));
  problems.push_back(Problem(2, 9, 1, 16, 24));
  problems.push_back(Problem(3, 5, 9, 40, 200));
  for (ConvolutionProblem& p : problems) {
    p.x_pitch = p.c + 16;
    p.y_pitch = p.k + 8;
  }
  return problems;
}

TEST(GradientOfMaximaTest, BlocksCoverAllStepsOfAllTilesOnce) {
  for (const ConvolutionProblem& problem : Problems({1, 3, 256})) {
    SCOPED_TRACE(ToString(problem));
    const Gemm g = tensor_core::GemmOf(problem);
    const int steps = (g.pixels() + kStepPixels - 1) / kStepPixels;
    for (const int filters : kTiles) {
      const GradientTiles tiles = GradientTilesOf(g, filters);
      ASSERT_LE(tiles.count() * tiles.splits, kGradientBlocks);
      ASSERT_LT(PartialSums(g, filters) * sizeof(float), 32u << 20);
      std::map<std::pair<int, int>, std::vector<int>> seen;
      for (int block = 0; block < tiles.count() * tiles.splits; ++block) {
        const GradientTile tile = GradientTileOf(g, filters, block);
        ASSERT_EQ(tile.first_pixel % kStepPixels, 0);
        ASSERT_GE(tile.steps, 1);
        ASSERT_LT(tile.split, tiles.splits);
        ASSERT_TRUE(tile.filter % filters == 0 && tile.filter < g.columns);
        ASSERT_TRUE(tile.channel % kTileChannels == 0 && tile.channel < g.depth);
        auto& of_tile = seen[{tile.filter, tile.channel}];
        of_tile.resize(static_cast<size_t>(steps));
        for (int i = 0; i < tile.steps; ++i) {
          ++of_tile.at(static_cast<size_t>(tile.first_pixel / kStepPixels + i));
        }
      }
      ASSERT_EQ(seen.size(), static_cast<size_t>((g.columns + filters - 1) / filters *
                                                 ((g.depth + kTileChannels - 1) / kTileChannels)));
      for (const auto& [tile, counts] : seen) ASSERT_THAT(counts, Each(1));
    }
  }
}

TEST(GradientOfMaximaTest, TwoBlocksForEachOf132Sms) {
  const auto blocks = [](const ConvolutionProblem& problem, int filters) {
    const GradientTiles tiles = GradientTilesOf(tensor_core::GemmOf(problem), filters);
    return tiles.count() * tiles.splits;
  };
  for (const auto& s : testing::kPoolBranches) {
    const int filters = s.k > 64 ? 128 : 64;
    EXPECT_GE(blocks(Problem(256, s.size, s.size, s.c, s.k), filters), 232) << s.c << ", " << s.k;
  }
}

// As the launched kernel does.
template <int kFilters, class Store>
void Pool(const Gemm& g, const GradientTile& tile, const bf16* x, int step, int thread, const Store& store) {
  ArePairs(g, kFilters) ? PoolChannels<kFilters, true>(g, tile, x, step, thread, store)
                        : PoolChannels<kFilters, false>(g, tile, x, step, thread, store);
}

// The expected content of each chunk of a stage, at the position given by RowOffset.
template <int kFilters>
void CheckCopies(const Gemm& g, const GradientTile& tile, int step) {
  std::vector<int> written(GradientStageBytes(kFilters) / 16);
  const auto pixel_of = [&](int row) { return tile.first_pixel + step * kStepPixels + row % 64; };
  const auto element_of = [](int to) { return (to / 16 % 8 ^ to / kRowBytes % 8) * kChunk; };
  const std::vector<bf16> x(static_cast<size_t>(g.pixels() * g.in_pitch), ToBf16(1));
  for (int thread = 0; thread < kCopyThreads; ++thread) {
    CopyGradients<kFilters>(g, tile, step, thread, [&](int to, int64_t from, bool inside) {
      ++written.at(static_cast<size_t>(to / 16));
      const int row = to / kRowBytes, pixel = pixel_of(row);
      const int filter = tile.filter + row / 64 * 64 + element_of(to);
      ASSERT_LT(row, kFilters);
      ASSERT_EQ(inside, pixel < g.pixels() && filter < g.columns);
      if (inside) {
        ASSERT_EQ(from, pixel * g.out_pitch + filter);
      }
    });
    Pool<kFilters>(g, tile, x.data(), step, thread, [&](int to, const Octet& maxima) {
      const auto chunk = std::bit_cast<std::array<bf16, kChunk>>(maxima);
      ++written.at(static_cast<size_t>(to / 16));
      const int row = to / kRowBytes - kFilters;
      ASSERT_GE(row, 0);
      const bool inside = pixel_of(row) < g.pixels() && tile.channel + element_of(to) < g.depth;
      for (const bf16 v : chunk) ASSERT_EQ(ToFloat(v), inside ? 1 : 0);
    });
  }
  ASSERT_THAT(written, Each(1));
}

TEST(GradientOfMaximaTest, CopiesFillTheirStages) {
  for (const ConvolutionProblem& problem : Problems({3})) {
    SCOPED_TRACE(ToString(problem));
    const Gemm g = tensor_core::GemmOf(problem);
    const auto check = [&](auto filters) {
      const GradientTiles tiles = GradientTilesOf(g, filters);
      const int blocks = tiles.count() * tiles.splits;
      for (const int block : std::set<int>{0, blocks / 3, blocks - 1}) {
        const GradientTile tile = GradientTileOf(g, filters, block);
        for (const int step : std::set<int>{0, tile.steps - 1}) CheckCopies<filters>(g, tile, step);
      }
    };
    check(std::integral_constant<int, 64>{});
    check(std::integral_constant<int, 128>{});
  }
}

TEST(GradientOfMaximaTest, NoBankConflicts) {
  const auto check = [](const auto& offset) {
    for (int first = 0; first < kLanes; first += 8) {
      std::set<int> groups;
      for (int lane = first; lane < first + 8; ++lane) groups.insert(offset(lane) / 16 % 8);
      ASSERT_EQ(groups.size(), 8u);
    }
  };
  for (int slice = 0; slice < 4; ++slice) {
    for (int first = 0; first < 128; first += 16) {
      check([&](int lane) { return FilterMatrixOffset(first, slice, lane); });
      if (first < kTileChannels) check([&](int lane) { return ChannelMatrixOffset<64>(first, slice, lane); });
    }
  }
}

class MaximaTest : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Widths, MaximaTest, ::testing::Values(1, 2, 4, 5));

TEST_P(MaximaTest, AreThoseOfTheForwardPass) {
  ConvolutionProblem problem = Problem(3, 6, GetParam(), 16, 8);
  problem.x_pitch = 24;
  const Gemm g = tensor_core::GemmOf(problem);
  std::minstd_rand generator;
  std::vector<bf16> x = WholeNumbers(SizesOf(problem).a / sizeof(bf16), generator);
  for (size_t i = 0; i < x.size(); i += 7) x[i] = ToBf16(i % 2 == 0 ? -INFINITY : NAN);
  for (int index = 0; index < g.pixels(); ++index) {
    for (int channel = 0; channel < g.depth; channel += kChunk) {
      const Octet maxima = MaxChunk(g, x.data(), index, channel);
      const Maxima pooled = PoolChunk(g, x.data(), SourceAt(g, index), channel);
      for (int j = 0; j < kChunk / 2; ++j) ASSERT_EQ(maxima.pairs[j], pooled.values.pairs[j]) << index;
      if (!ArePairs(g, 64)) continue;
      const OctetPair pair = MaxChunks(g, x.data(), index / 2 * 2, channel);
      const Octet& of_pair = index % 2 == 0 ? pair.left : pair.right;
      for (int j = 0; j < kChunk / 2; ++j) ASSERT_EQ(maxima.pairs[j], of_pair.pairs[j]) << index;
    }
  }
}

// Equivalent of PooledGradientSm80.
template <int kFilters>
void Block(const Gemm& g, const std::vector<bf16>& x, const std::vector<bf16>& dy, int block,
           std::vector<float>& partial) {
  constexpr int kWarpFilters = kFilters / 4, kWarpChannels = 32;
  const GradientTile tile = GradientTileOf(g, kFilters, block);
  std::vector<Accumulators> acc(8, MakeAccumulators(kWarpFilters / 16, kWarpChannels / 8));
  Shared shared(kCopyStages * GradientStageBytes(kFilters), kUnwritten);
  const auto copy = [&](int step, int index, auto& copies) {
    const int stage = index * GradientStageBytes(kFilters);
    for (int thread = 0; thread < kCopyThreads; ++thread) {
      CopyGradients<kFilters>(g, tile, step, thread, [&](int to, int64_t from, bool inside) {
        std::array<bf16, kChunk> chunk = {};
        for (int i = 0; inside && i < kChunk; ++i) chunk[i] = dy.at(static_cast<size_t>(from + i));
        copies.Start(stage + to, chunk);
      });
      Pool<kFilters>(g, tile, x.data(), step, thread, [&](int to, const Octet& chunk) {
        std::memcpy(&shared.at(static_cast<size_t>(stage + to)), &chunk, sizeof chunk);
      });
    }
  };
  const auto multiply = [&](int, int index) {
    const uint32_t stage = kBase + static_cast<uint32_t>(index * GradientStageBytes(kFilters));
    for (int warp = 0; warp < 8; ++warp) {
      const int filter = warp % 4 * kWarpFilters, channel = warp / 4 * kWarpChannels;
      const auto load = [&](const auto& offset) {
        std::array<uint32_t, kLanes> at;
        for (int lane = 0; lane < kLanes; ++lane) at[lane] = stage + offset(lane);
        return LoadMatrices(shared, true, at);
      };
      for (int slice = 0; slice < kStepPixels / kSliceDepth; ++slice) {
        for (int i = 0; i < kWarpChannels / 8; i += 2) {
          const Matrices b =
              load([&](int lane) { return ChannelMatrixOffset<kFilters>(channel + i * 8, slice, lane); });
          for (int fragment = 0; fragment < kWarpFilters / 16; ++fragment) {
            const Matrices a =
                load([&](int lane) { return FilterMatrixOffset(filter + fragment * 16, slice, lane); });
            Multiply(acc[warp][fragment][i], a, b, 0);
            Multiply(acc[warp][fragment][i + 1], a, b, 2);
          }
        }
      }
    }
  };
  CopyEmulation machine(shared, GradientStageBytes(kFilters), copy, multiply);
  CopyAndMultiply<kCopyStages>(tile.steps, machine);
  for (int warp = 0; warp < 8; ++warp) {
    for (int fragment = 0; fragment < kWarpFilters / 16; ++fragment) {
      for (int n = 0; n < kWarpChannels / 8; ++n) {
        for (int lane = 0; lane < kLanes; ++lane) {
          for (int i = 0; i < 4; ++i) {
            const int k = tile.filter + warp % 4 * kWarpFilters + fragment * 16 + FragmentRow(lane, i);
            const int c = tile.channel + warp / 4 * kWarpChannels + n * 8 + FragmentColumn(lane, i);
            if (k >= g.columns || c >= g.depth) continue;
            float& sum = partial.at(static_cast<size_t>(PartialIndex(g, tile.split, k, c)));
            ASSERT_TRUE(std::isnan(sum)) << "written twice";
            sum = acc[warp][fragment][n][lane][i];
          }
        }
      }
    }
  }
}

template <int kFilters>
std::vector<float> Gradient(const Gemm& g, const std::vector<bf16>& x, const std::vector<bf16>& dy) {
  const GradientTiles tiles = GradientTilesOf(g, kFilters);
  std::vector<float> partial(static_cast<size_t>(PartialSums(g, kFilters)), NAN);
  for (int block = 0; block < tiles.count() * tiles.splits; ++block)
    Block<kFilters>(g, x, dy, block, partial);
  std::vector<float> dw(static_cast<size_t>(g.columns * g.depth));
  for (size_t i = 0; i < partial.size(); ++i) dw[i % dw.size()] += partial[i];
  return dw;
}

// Requires identical bits. The memory between slices is poisoned.
void Check(const ConvolutionProblem& problem) {
  SCOPED_TRACE(ToString(problem));
  const Gemm g = tensor_core::GemmOf(problem);
  const OperandSizes sizes = SizesOf(problem);
  std::minstd_rand generator;
  std::vector<bf16> x = WholeNumbers(sizes.a / sizeof(bf16), generator),
                    dy = WholeNumbers(sizes.b / sizeof(bf16), generator);
  for (size_t i = 0; i < x.size(); ++i) {
    if (i % static_cast<size_t>(g.in_pitch) >= static_cast<size_t>(g.depth)) x[i] = {kPoison};
  }
  for (size_t i = 0; i < dy.size(); ++i) {
    if (i % static_cast<size_t>(g.out_pitch) >= static_cast<size_t>(g.columns)) dy[i] = {kPoison};
  }
  std::vector<float> expected(sizes.d / sizeof(float));
  const auto device = testing::MakeHostCudaDevice();
  const auto plan = AsCuda(*device).Plan(problem);
  ASSERT_TRUE(plan.ok()) << plan.status();
  (*plan)->Run({.a = x.data(), .b = dy.data(), .d = expected.data()});
  EXPECT_TRUE(Gradient<64>(g, x, dy) == expected);
  EXPECT_TRUE(Gradient<128>(g, x, dy) == expected);
}

TEST(GradientOfMaximaTest, IsTheNaiveOne) {
  for (const ConvolutionProblem& problem : Problems({1, 3})) Check(problem);
}

// The first and the last block at batch 256, and one between. Memory that none of them reads stays 0.
template <int kFilters>
void CheckSomeBlocks(const ConvolutionProblem& problem) {
  SCOPED_TRACE(ToString(problem));
  const Gemm g = tensor_core::GemmOf(problem);
  const GradientTiles tiles = GradientTilesOf(g, kFilters);
  const int blocks = tiles.count() * tiles.splits, margin = g.width + 1;
  std::vector<bf16> x(SizesOf(problem).a / sizeof(bf16)), dy(SizesOf(problem).b / sizeof(bf16));
  std::minstd_rand generator;
  for (const int block : {0, blocks / 2 + 1, blocks - 1}) {
    const GradientTile tile = GradientTileOf(g, kFilters, block);
    const int end = std::min(tile.first_pixel + tile.steps * kStepPixels, g.pixels());
    for (int pixel = std::max(tile.first_pixel - margin, 0); pixel < std::min(end + margin, g.pixels());
         ++pixel) {
      const std::vector<bf16> numbers = WholeNumbers(static_cast<size_t>(g.depth), generator);
      std::copy(numbers.begin(), numbers.end(), x.begin() + pixel * g.in_pitch);
    }
    for (int pixel = tile.first_pixel; pixel < end; ++pixel) {
      const std::vector<bf16> numbers = WholeNumbers(static_cast<size_t>(g.columns), generator);
      std::copy(numbers.begin(), numbers.end(), dy.begin() + pixel * g.out_pitch);
    }
    std::vector<float> partial(static_cast<size_t>(PartialSums(g, kFilters)), NAN);
    Block<kFilters>(g, x, dy, block, partial);
    const int filters = std::min(kFilters, g.columns - tile.filter),
              channels = std::min(kTileChannels, g.depth - tile.channel);
    std::vector<float> expected(static_cast<size_t>(filters * channels));
    for (int pixel = tile.first_pixel; pixel < end; ++pixel) {
      const int row = pixel / g.width % g.height, column = pixel % g.width;
      for (int c = 0; c < channels; ++c) {
        float largest = -INFINITY;
        for (int y = std::max(row - 1, 0); y <= std::min(row + 1, g.height - 1); ++y) {
          for (int z = std::max(column - 1, 0); z <= std::min(column + 1, g.width - 1); ++z) {
            const int64_t at = int64_t{pixel} + (y - row) * g.width + z - column;
            largest = std::max(largest, ToFloat(x[static_cast<size_t>(at * g.in_pitch + tile.channel + c)]));
          }
        }
        for (int k = 0; k < filters; ++k) {
          expected[static_cast<size_t>(k * channels + c)] +=
              largest * ToFloat(dy[static_cast<size_t>(pixel * g.out_pitch + tile.filter + k)]);
        }
      }
    }
    for (int k = 0; k < filters; ++k) {
      for (int c = 0; c < channels; ++c) {
        const int64_t at = PartialIndex(g, tile.split, tile.filter + k, tile.channel + c);
        ASSERT_EQ(partial[static_cast<size_t>(at)], expected[static_cast<size_t>(k * channels + c)])
            << "block " << block << ", filter " << k << ", channel " << c;
      }
    }
  }
}

TEST(GradientOfMaximaTest, SomeBlocksOfBatch256) {
  for (const auto& s : testing::kPoolBranches) {
    ConvolutionProblem problem = Problem(256, s.size, s.size, s.c, s.k);
    problem.x_pitch = s.c + 16;
    problem.y_pitch = s.k + 8;
    CheckSomeBlocks<64>(problem);
    CheckSomeBlocks<128>(problem);
  }
}

}  // namespace
}  // namespace deeper::conv
