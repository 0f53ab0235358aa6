// The first convolution with its ReLU and max pool. Tests its index math alone and in emulated blocks of the
// kernel.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "kernels/cuda/plans/cuda_problem.h"
#include "kernels/cuda/tensor_core/conv_pipeline.h"
#include "kernels/cuda/tensor_core/conv_stem_tiling.h"
#include "tests/kernels/cuda/tensor_core/bank_conflicts.h"
#include "tests/kernels/cuda/tensor_core/mma_emulation.h"
#include "tests/kernels/test_device.h"

namespace deeper::conv {
namespace {

using ::testing::Each;

ConvolutionProblem Problem(int64_t n, int64_t h, int64_t w) {
  ConvolutionProblem p = {.n = n, .h = h, .w = w, .c = kStoredChannels, .k = kStemFilters};
  p.kernel = kStemKernel;
  p.stride = 2;
  p.pad = kStemPad;
  p.bias = p.relu = p.pool_y = true;
  return p;
}

constexpr Stem kStems[] = {{1, 224, 224}, {3, 224, 224}, {256, 224, 224}, {3, 225, 197}, {2, 33, 33},
                           {1, 1, 1},     {1, 7, 460},   {2, 460, 8},     {1, 61, 449},  {1, 227, 226}};

TEST(StemTest, HasTheShapeOfTheProblem) {
  for (const Stem& g : kStems) {
    const ConvolutionProblem p = Problem(g.images, g.height, g.width);
    EXPECT_THAT((std::vector<int64_t>{g.rows(), g.columns(), g.window_rows(), g.window_columns()}),
                ::testing::ElementsAre(p.out_h(), p.out_w(), p.y_h(), p.y_w()));
  }
}

// Of GoogLeNet: a strip is a quarter of an image, and computes one row of 29 twice.
TEST(StemTest, Strips) {
  const Stem g = {256, 224, 224};
  EXPECT_EQ(g.strips(), 1024);
  EXPECT_EQ(g.steps(), 29);
  EXPECT_EQ(g.blocks(), 512);
}

TEST(StemTest, EveryWindowIsStoredOnce) {
  for (const Stem& g : kStems) {
    std::vector<int> stored(static_cast<size_t>(g.images) * g.window_rows() * g.window_columns());
    for (int index = 0; index < g.blocks() * kBlockStrips; ++index) {
      const Strip strip = StripOf(g, index);
      ASSERT_EQ(strip.image < g.images, index < g.strips());
      if (strip.image >= g.images) continue;
      // The windows of the strip, except for one that another strip stores, do not need places on its left.
      ASSERT_TRUE(strip.column == 0 || strip.first_column == strip.column + 1);
      ASSERT_EQ(strip.PlaceRow(0), 2 * strip.row - 1);
      for (int row = strip.row; row < std::min(strip.row + g.strip_rows(), g.window_rows()); ++row) {
        for (int column = strip.first_column;
             column < std::min(strip.column + kStripWindows, g.window_columns()); ++column) {
          const int64_t line = int64_t{strip.image} * g.window_rows() + row;
          ++stored.at(static_cast<size_t>(line * g.window_columns() + column));
        }
      }
    }
    ASSERT_THAT(stored, Each(1)) << g.height << " x " << g.width;
  }
}

TEST(StemTest, NoBankConflicts) {
  for (int slice = 0; slice < kRowSlices; ++slice) {
    for (int fragment = 0; fragment < kStripFragments; ++fragment)
      ExpectNoBankConflicts([&](int lane) { return SliceOffset(fragment, slice) + PlaceMatrixOffset(lane); });
  }
  for (int slice = 0; slice < kStemSlices; ++slice)
    ExpectNoBankConflicts([&](int lane) { return FilterSliceOffset(0, slice) + FilterMatrixOffset(lane); });
}

// Each pixel of a row and each tap is written once, and offsets do not overlap.
TEST(StemTest, CopiesFillSharedMemory) {
  const Stem g = {2, 224, 224};
  std::vector<int> filters(kStemWeightBytes), row(kImageRowBytes);
  const auto add = [](std::vector<int>& written, int to) {
    for (int i = 0; i < kPixelCopy; ++i) ++written.at(static_cast<size_t>(int64_t{to} + i));
  };
  for (int thread = 0; thread < kStemThreads; ++thread)
    CopyFilters(thread, [&](int to, int64_t, bool) { add(filters, to); });
  for (int lane = 0; lane < kLanes; ++lane)
    CopyImageRow(g, StripOf(g, 0), 0, lane, [&](int to, int64_t, bool) { add(row, to); });
  for (int filter = 0; filter < kStemFilters; ++filter) {
    for (int byte = 0; byte < kFilterBytes; ++byte)
      ASSERT_EQ(filters[static_cast<size_t>(filter * kFilterBytes + byte)], byte < kFilterBytes - 16);
  }
  for (int pixel = 0; pixel < kRowPixels; ++pixel) {
    for (int i = 0; i < kPixelCopy; ++i) ASSERT_EQ(row[static_cast<size_t>(PixelOffset(pixel) + i)], 1);
  }
}

// While a step is multiplied, the copies of the next two steps may arrive.
TEST(StemTest, CopiesReplaceNoRowThatIsRead) {
  for (int step = 0; step < 40; ++step) {
    ASSERT_LE(2 * step + kStemKernel, FirstRowOfGroup(step + 1)) << "a row is copied too late";
    for (int read = 2 * step; read < 2 * step + kStemKernel; ++read) {
      for (int row = FirstRowOfGroup(step + 1); row < FirstRowOfGroup(step + kCopyStages); ++row)
        ASSERT_NE(row % kRingRows, read % kRingRows) << "row " << row << " in step " << step;
    }
  }
}

// ---- Emulation ----------------------------------------------------------------------------------------

struct Operands {
  std::vector<bf16> x, weights, bias;
};

using Pairs = std::array<uint32_t, kLanes>;

// Equivalent of TransposeQuad (conv_epilogue.h).
void TransposeQuads(uint32_t (&v)[kLanes][4]) {
  for (int distance = 1; distance <= 2; distance *= 2) {
    for (int i = 0; i < 4; ++i) {
      if ((i & distance) != 0) continue;
      Pairs sent;
      for (int lane = 0; lane < kLanes; ++lane) sent[lane] = Outgoing(v[lane], lane, distance, i);
      for (int lane = 0; lane < kLanes; ++lane) Incoming(v[lane], lane, distance, i, sent[lane ^ distance]);
    }
  }
}

// The part of a strip that a warp computes.
struct Warp {
  Strip strip;
  int half, ring;  // offset of the ring
  Largest largest[kStripFragments][kWarpBlocks / 2][kLanes];

  void Step(const Stem& g, int step, const Shared& shared, const Operands& operands, const StemOutput& out) {
    const int filter = half * kWarpFilters;
    Accumulators acc = MakeAccumulators(kStripFragments, kWarpBlocks);
    for (std::vector<Fragment>& fragment : acc) {
      for (int block = 0; block < kWarpBlocks; ++block) {
        for (int lane = 0; lane < kLanes; ++lane) {
          for (int i = 0; i < 4; ++i) {
            const int column = filter + block * 8 + FragmentColumn(lane, i);
            fragment[static_cast<size_t>(block)][lane][i] =
                ToFloat(operands.bias[static_cast<size_t>(column)]);
          }
        }
      }
    }
    for (int row = 0; row < kStemKernel; ++row) {
      const int from = ring + (2 * step + row) % kRingRows * kImageRowBytes;
      for (int slice = 0; slice < kRowSlices; ++slice) {
        const auto load = [&shared](const auto& offset) {
          std::array<uint32_t, kLanes> at;
          for (int lane = 0; lane < kLanes; ++lane) at[lane] = kBase + static_cast<uint32_t>(offset(lane));
          return LoadMatrices(shared, false, at);
        };
        for (int pair = 0; pair < kWarpBlocks / 2; ++pair) {
          const Matrices b = load([&](int lane) {
            return filter * kFilterBytes + FilterSliceOffset(pair * 16, row * kRowSlices + slice) +
                   FilterMatrixOffset(lane);
          });
          for (int fragment = 0; fragment < kStripFragments; ++fragment) {
            const Matrices a =
                load([&](int lane) { return from + SliceOffset(fragment, slice) + PlaceMatrixOffset(lane); });
            Multiply(acc[fragment][pair * 2], a, b, 0);
            Multiply(acc[fragment][pair * 2 + 1], a, b, 2);
          }
        }
      }
    }
    Pool(g, step, acc, out);
  }

 private:
  void Pool(const Stem& g, int step, const Accumulators& acc, const StemOutput& out) {
    const int place_row = strip.PlaceRow(step);
    const bool exists = place_row >= 0 && place_row < g.rows();
    std::vector<Pairs> before(kWarpBlocks);
    for (Pairs& pairs : before) pairs.fill(kOutsidePair);
    for (int fragment = 0; fragment < kStripFragments; ++fragment) {
      const auto column = [&](int lane) { return strip.column + fragment * 8 + FragmentRow(lane, 0); };
      uint32_t values[kLanes][4], places[kLanes][4];
      for (int pair = 0; pair < kWarpBlocks / 2; ++pair) {
        uint32_t left[kLanes][2], middle[kLanes][2], right[kLanes][2];
        for (int i = 0; i < 2; ++i) {
          const auto block = static_cast<size_t>(int64_t{pair} * 2 + i);
          for (int lane = 0; lane < kLanes; ++lane) {
            const auto& sums = acc[fragment][block][lane];
            middle[lane][i] = ActivatedPair(sums[0], sums[1]);
            right[lane][i] =
                2 * column(lane) + 1 < g.columns() ? ActivatedPair(sums[2], sums[3]) : kOutsidePair;
          }
          for (int lane = 0; lane < kLanes; ++lane) {
            const uint32_t rotated = right[LaneBefore(lane)][i];
            left[lane][i] = lane < 4 ? before[block][lane] : rotated;
            before[block][lane] = rotated;
          }
        }
        for (int lane = 0; lane < kLanes; ++lane) {
          Largest of_row = LargestOfRow(left[lane], middle[lane], right[lane]);
          if (!exists) of_row.values[0] = of_row.values[1] = kOutsidePair;
          Largest& of_window = largest[fragment][pair][lane];
          if (step > 0) TakeRow(of_window, of_row, step % 2 != 0 ? 1 : 2);
          for (int i = 0; i < 2; ++i) {
            values[lane][pair * 2 + i] = of_window.values[i];
            places[lane][pair * 2 + i] = PlacesOf(of_window, i);
          }
          if (step % 2 == 0) of_window = of_row;
        }
      }
      if (step == 0 || step % 2 != 0) continue;
      TransposeQuads(values);
      TransposeQuads(places);
      for (int lane = 0; lane < kLanes; ++lane) {
        StoreWindow(g, strip, strip.row + step / 2 - 1, column(lane), half * kWarpFilters + ChunkColumn(lane),
                    values[lane], places[lane], out);
      }
    }
  }
};

// Equivalent of ConvStemSm80.
void Block(const Stem& g, int block, const Operands& operands, const StemOutput& out) {
  Shared shared(kStemSharedBytes, kUnwritten);
  std::vector<Warp> warps;
  for (int warp = 0; warp < kBlockStrips * kStripWarps; ++warp) {
    const int in_block = warp / kStripWarps;
    warps.push_back({StripOf(g, block * kBlockStrips + in_block),
                     warp % kStripWarps,
                     kStemWeightBytes + in_block * kRingBytes,
                     {}});
  }
  const auto copy = [&](int group, int, auto& copies) {
    const auto start = [&copies](const std::vector<bf16>& values, int to, int64_t from, bool inside) {
      std::array<bf16, kStemChannels> pixel = {};
      for (size_t i = 0; inside && i < pixel.size(); ++i) pixel[i] = values.at(static_cast<size_t>(from) + i);
      copies.Start(to, pixel);
    };
    const auto copy_row = [&](const Warp& warp, int row) {
      for (int lane = 0; lane < kLanes; ++lane) {
        CopyImageRow(g, warp.strip, row, lane, [&](int offset, int64_t from, bool inside) {
          start(operands.x, warp.ring + row % kRingRows * kImageRowBytes + offset, from, inside);
        });
      }
    };
    for (const Warp& warp : warps) {
      if (group > 0) copy_row(warp, FirstRowOfGroup(group) + warp.half);
      for (int row = warp.half; group == 0 && row < kFirstRows; row += kStripWarps) copy_row(warp, row);
    }
    for (int thread = 0; group == 0 && thread < kStemThreads; ++thread) {
      CopyFilters(thread, [&](int to, int from, bool inside) { start(operands.weights, to, from, inside); });
    }
  };
  const auto multiply = [&](int step, int) {
    for (Warp& warp : warps) warp.Step(g, step, shared, operands, out);
  };
  CopyEmulation machine(shared, 0, copy, multiply);
  CopyAndMultiply<kCopyStages>(g.steps(), machine);
}

struct Result {
  std::vector<bf16> y;
  std::vector<uint8_t> positions;
};

Result Emulated(const ConvolutionProblem& problem, const Operands& operands) {
  const Stem g = {static_cast<int>(problem.n), static_cast<int>(problem.h), static_cast<int>(problem.w)};
  Result result = {std::vector<bf16>(SizesOf(problem).d / sizeof(bf16), bf16{kPoison}),
                   std::vector<uint8_t>(SizesOf(problem).argmax, 0xFF)};
  for (int block = 0; block < g.blocks(); ++block)
    Block(g, block, operands, {result.y.data(), result.positions.data()});
  return result;
}

Result Expected(const ConvolutionProblem& problem, const Operands& operands) {
  Result result = {std::vector<bf16>(SizesOf(problem).d / sizeof(bf16)),
                   std::vector<uint8_t>(SizesOf(problem).argmax)};
  const auto device = testing::MakeHostCudaDevice();
  const auto plan = AsCuda(*device).Plan(problem);
  EXPECT_TRUE(plan.ok()) << plan.status();
  (*plan)->Run({.a = operands.x.data(),
                .b = operands.weights.data(),
                .d = result.y.data(),
                .bias = operands.bias.data(),
                .argmax = result.positions.data()});
  return result;
}

// The channels that must be zeros are.
template <class Draw>
Operands Draw8(const ConvolutionProblem& problem, const Draw& draw) {
  const OperandSizes sizes = SizesOf(problem);
  Operands operands = {draw(sizes.a / sizeof(bf16)), draw(sizes.b / sizeof(bf16)),
                       draw(sizes.bias / sizeof(bf16))};
  for (std::vector<bf16>* values : {&operands.x, &operands.weights}) {
    for (size_t i = 0; i < values->size(); ++i) {
      if (i % kStoredChannels >= kStemChannels) (*values)[i] = {};
    }
  }
  return operands;
}

TEST(StemTest, WholeNumbersAgreeBitForBit) {
  std::minstd_rand generator;
  for (const auto& [n, h, w] :
       {std::array{1, 224, 224}, {1, 225, 197}, {3, 33, 33}, {1, 9, 450}, {2, 70, 31}}) {
    const ConvolutionProblem problem = Problem(n, h, w);
    SCOPED_TRACE(ToString(problem));
    const Operands operands = Draw8(problem, [&](size_t count) { return WholeNumbers(count, generator); });
    const Result expected = Expected(problem, operands), found = Emulated(problem, operands);
    size_t different = 0;
    for (size_t i = 0; i < expected.y.size(); ++i) {
      different += ToFloat(found.y[i]) != ToFloat(expected.y[i]);  // 0 and -0 are the same
    }
    EXPECT_EQ(different, 0u);
    EXPECT_TRUE(found.positions == expected.positions);
  }
}

TEST(StemTest, RealNumbersAgreeUpToRounding) {
  std::minstd_rand generator;
  std::uniform_real_distribution<float> uniform(-1, 1);
  const ConvolutionProblem problem = Problem(3, 47, 65);
  const Operands operands = Draw8(problem, [&](size_t count) {
    std::vector<bf16> numbers(count);
    for (bf16& number : numbers) number = ToBf16(uniform(generator));
    return numbers;
  });
  const Result expected = Expected(problem, operands), found = Emulated(problem, operands);
  size_t same_places = 0;
  for (size_t i = 0; i < expected.y.size(); ++i) {
    const float value = ToFloat(expected.y[i]);
    ASSERT_NEAR(ToFloat(found.y[i]), value, std::ldexp(value, -7) + 1e-5f) << i;
    same_places += found.positions[i] == expected.positions[i];
  }
  EXPECT_GT(static_cast<double>(same_places), 0.99 * static_cast<double>(expected.y.size()));
}

// A window whose places are all masked has no position, and a NaN reaches all windows that contain it.
TEST(StemTest, NegativesAndNaNs) {
  std::minstd_rand generator;
  const ConvolutionProblem problem = Problem(1, 24, 24);
  Operands operands = Draw8(problem, [&](size_t count) { return WholeNumbers(count, generator); });
  operands.bias[3] = ToBf16(-4096);
  operands.x[(12 * 24 + 12) * kStoredChannels] = ToBf16(NAN);
  const Result expected = Expected(problem, operands), found = Emulated(problem, operands);
  int nans = 0;
  for (size_t i = 0; i < expected.y.size(); ++i) {
    const float value = ToFloat(found.y[i]);
    nans += std::isnan(value);
    if (std::isnan(ToFloat(expected.y[i]))) {
      ASSERT_TRUE(std::isnan(value));
    }
    if (i % kStemFilters == 3 && !std::isnan(value)) {
      ASSERT_EQ(value, 0);
    }
    ASSERT_EQ(found.positions[i] == kNoMaximum, !(value > 0));
  }
  EXPECT_GT(nans, 0);
  EXPECT_LT(nans, std::ssize(expected.y));
}

}  // namespace
}  // namespace deeper::conv
