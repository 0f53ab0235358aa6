// The gradients of the first convolution's weights and bias. Tests their index math alone and in emulated
// blocks of the kernel.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <tuple>
#include <vector>

#include "kernels/cuda/plans/cuda_problem.h"
#include "kernels/cuda/tensor_core/conv_pipeline.h"
#include "kernels/cuda/tensor_core/conv_stem_gradient_tiling.h"
#include "tests/kernels/cuda/tensor_core/bank_conflicts.h"
#include "tests/kernels/cuda/tensor_core/mma_emulation.h"
#include "tests/kernels/test_device.h"

namespace deeper::conv {
namespace {

using ::testing::Each;

ConvolutionProblem Problem(int64_t n, int64_t h, int64_t w) {
  ConvolutionProblem p = {.n = n, .h = h, .w = w, .c = kStoredChannels, .k = kStemFilters};
  p.pass = ConvolutionProblem::Pass::kBackwardWeights;
  p.kernel = kStemKernel;
  p.stride = 2;
  p.pad = kStemPad;
  p.pool_y = true;
  return p;
}

constexpr Stem kStems[] = {{1, 224, 224}, {3, 224, 224}, {256, 224, 224}, {3, 225, 197},
                           {2, 33, 33},   {1, 1, 1},     {1, 7, 460},     {2, 460, 8}};

TEST(StemGradientTest, BandsCoverEveryWindowOnce) {
  for (const Stem& g : kStems) {
    std::vector<int> seen(static_cast<size_t>(g.images) * g.window_rows() * g.window_columns());
    ASSERT_LE(StemSplits(g), kMostStemSplits);
    for (int split = 0; split < StemSplits(g); ++split) {
      const int first = split * BandsOfSplit(g), end = std::min(first + BandsOfSplit(g), BandCount(g));
      ASSERT_LT(first, end);
      BandRows next = FirstBandRows(g, first);
      for (int index = first; index < end; ++index, AdvanceRows(g, next)) {
        const Band band = BandOf(g, index);
        ASSERT_EQ(std::tuple(next.band.image, next.band.row, next.band.column),
                  std::tuple(band.image, band.row, band.column));
        ASSERT_LT(band.image, g.images);
        for (int column = band.column; column < std::min(band.column + kBandQuads, g.window_columns());
             ++column) {
          const int64_t line = int64_t{band.image} * g.window_rows() + band.row;
          ++seen.at(static_cast<size_t>(line * g.window_columns() + column));
        }
      }
    }
    ASSERT_THAT(seen, Each(1)) << g.height << " x " << g.width;
  }
}

// The ring has each row of a band, and while a band is multiplied, no copy for the next one replaces them.
TEST(StemGradientTest, RingHoldsTheRowsOfEveryBand) {
  for (const Stem& g : kStems) {
    const int end = std::min(BandCount(g), 3 * g.window_rows());
    std::array<std::tuple<int, int, int>, kBandRingRows> ring = {};  // image, column, row of the image
    const auto row_of = [](const Band& band, int row) {
      return std::tuple(band.image, band.column, 4 * band.row + row);
    };
    BandRows copied = FirstBandRows(g, 0), multiplied = copied;
    const auto copy = [&] {
      for (int row = kBandRows - copied.copied; row < kBandRows; ++row)
        ring.at(static_cast<size_t>(copied.SlotOf(row))) = row_of(copied.band, row);
      AdvanceRows(g, copied);
    };
    copy();
    for (int index = 0; index < end; ++index, AdvanceRows(g, multiplied)) {
      if (index + 1 < end) copy();
      for (int row = 0; row < kBandRows; ++row)
        ASSERT_EQ(ring.at(static_cast<size_t>(multiplied.SlotOf(row))), row_of(multiplied.band, row));
    }
  }
}

// Two blocks for each of 132 SMs, nearly.
TEST(StemGradientTest, SplitsOfGoogLeNet) {
  EXPECT_EQ(StemSplits({256, 224, 224}), 261);
}

TEST(StemGradientTest, NoBankConflicts) {
  for (int slice = 0; slice < 2 * kBandPlaces / kSliceDepth; ++slice) {
    for (int filter = 0; filter < kStemFilters; filter += 16)
      ExpectNoBankConflicts([&](int lane) { return GradientMatrixOffset(filter, slice, lane); });
    ExpectNoBankConflicts([&](int lane) { return PatchMatrixOffset(16, slice % 7 * kSliceDepth, lane); });
  }
  for (int place = 0; place < 4; ++place) {  // stores by a warp
    ExpectNoBankConflicts(
        [&](int lane) { return QuadOffset(QuadOfThread(lane, 0), place, ChunkOfThread(lane)); });
  }
}

TEST(StemGradientTest, ThreadsSpreadEveryPlaceOnce) {
  std::vector<int> written(kBandBytes / 16);
  for (int thread = 0; thread < kBandThreads; ++thread) {
    for (int i = 0; i < kThreadQuads; ++i) {
      for (int place = 0; place < 4; ++place)
        ++written.at(static_cast<size_t>(QuadOffset(QuadOfThread(thread, i), place, ChunkOfThread(thread))) /
                     16);
      ASSERT_EQ(ChunkOfThread(thread), (thread + i * kBandThreads) % 8 * kChunk);
    }
  }
  EXPECT_THAT(written, Each(1));
}

// ---- Emulation ----------------------------------------------------------------------------------------

struct Operands {
  std::vector<bf16> x, dy;
  std::vector<uint8_t> positions;
};

// acc: [warp].
void StoreSums(const std::vector<Accumulators>& acc, int split, std::vector<float>& partial) {
  const size_t sums = static_cast<size_t>(split) * kStemSums;
  for (int warp = 0; warp < kStemKernel; ++warp) {
    for (int fragment = 0; fragment < kStemFilters / 16; ++fragment) {
      for (int block = 0; block < kRowDepth / 8; ++block) {
        for (int lane = 0; lane < kLanes; ++lane) {
          for (int i = 0; i < 4; ++i) {
            const int at =
                StemSumIndex(fragment * 16 + FragmentRow(lane, i), warp, block * 8 + FragmentColumn(lane, i));
            if (at < 0) continue;
            float& sum = partial.at(sums + static_cast<size_t>(at));
            ASSERT_TRUE(std::isnan(sum)) << "written twice";
            sum = acc[warp][fragment][block][lane][i];
          }
        }
      }
    }
  }
}

// The machine of SpreadAndMultiply, with the copies of CopyEmulation.
template <class CopyBand, class SpreadHalf, class MultiplyHalf>
class SpreadEmulation : public CopyEmulation<CopyBand, MultiplyHalf> {
 public:
  SpreadEmulation(Shared& shared, const CopyBand& copy, const SpreadHalf& spread,
                  const MultiplyHalf& multiply)
      : CopyEmulation<CopyBand, MultiplyHalf>(shared, kBandBytes, copy, multiply),
        spread_(spread),
        multiply_(multiply) {}
  void Spread(int, int stage, int half) { spread_(stage, half); }
  void Multiply(int, int stage, int half) { multiply_(stage, half); }

 private:
  const SpreadHalf& spread_;
  const MultiplyHalf& multiply_;
};

// Equivalent of StemGradientSm80.
void Block(const Stem& g, int split, const Operands& operands, std::vector<float>& partial) {
  Shared shared(kBandSharedBytes, kUnwritten);
  constexpr int kRing = kBandStages * kBandBytes;
  const int first = split * BandsOfSplit(g), end = std::min(first + BandsOfSplit(g), BandCount(g));
  const auto spread_quad = [&](const Band& band, int thread, int half, int dz) {
    const int quad = QuadOfThread(thread, half), filter = ChunkOfThread(thread);
    const QuadWindows windows =
        WindowsOf(g, band, quad, filter, {operands.dy.data(), operands.positions.data()});
    for (int place = 0; place < 4; ++place) {
      const Octet gradient = GradientOfPlace(windows, place);
      std::memcpy(&shared.at(static_cast<size_t>(int64_t{dz} + QuadOffset(quad, place, filter))), &gradient,
                  sizeof gradient);
    }
  };

  BandRows spread_band = FirstBandRows(g, first), multiplied_band = spread_band;
  const auto copy = [&](int, int, auto& copies) {
    for (int row = kBandRows - spread_band.copied; row < kBandRows; ++row) {
      for (int lane = 0; lane < kLanes; ++lane) {
        CopyBandRow(g, spread_band.band, row, lane, [&](int offset, int64_t from, bool inside) {
          std::array<bf16, kStemChannels> pixel = {};
          for (size_t i = 0; inside && i < pixel.size(); ++i)
            pixel[i] = operands.x.at(static_cast<size_t>(from) + i);
          copies.Start(kRing + spread_band.SlotOf(row) * kBandRowBytes + offset, pixel);
        });
      }
    }
  };
  const auto spread = [&](int stage, int half) {
    for (int thread = 0; thread < kBandThreads; ++thread)
      spread_quad(spread_band.band, thread, half, stage * kBandBytes);
    if (half == 1) AdvanceRows(g, spread_band);
  };
  std::vector<Accumulators> acc(kStemKernel, MakeAccumulators(kStemFilters / 16, kRowDepth / 8));
  const auto load = [&shared](const auto& offset) {
    std::array<uint32_t, kLanes> at;
    for (int lane = 0; lane < kLanes; ++lane) at[lane] = kBase + static_cast<uint32_t>(offset(lane));
    return LoadMatrices(shared, true, at);
  };
  const auto multiply_row = [&](int dz, int from, Accumulators& sums) {
    for (int slice = 0; slice < kBandPlaces / kSliceDepth; ++slice) {
      for (int column = 0; column < kRowDepth; column += 16) {
        Matrices b =
            load([&](int lane) { return from + PatchMatrixOffset(column, slice * kSliceDepth, lane); });
        for (int lane = kFirstBiasLane; column + 16 == kRowDepth && lane < kLanes; ++lane)
          b[lane][2] = b[lane][3] = {LowOf(kPairOfOnes), HighOf(kPairOfOnes)};
        for (int fragment = 0; fragment < kStemFilters / 16; ++fragment) {
          const Matrices a =
              load([&](int lane) { return dz + GradientMatrixOffset(fragment * 16, slice, lane); });
          Multiply(sums[fragment][column / 8], a, b, 0);
          Multiply(sums[fragment][column / 8 + 1], a, b, 2);
        }
      }
    }
  };
  const auto multiply = [&](int stage, int half) {
    for (int warp = 0; warp < kStemKernel; ++warp) {
      multiply_row(stage * kBandBytes + half * kBandPlaces * kRowBytes,
                   kRing + multiplied_band.SlotOf(2 * half + warp) * kBandRowBytes, acc[warp]);
    }
    if (half == 1) AdvanceRows(g, multiplied_band);
  };
  SpreadEmulation machine(shared, copy, spread, multiply);
  SpreadAndMultiply(end - first, machine);
  StoreSums(acc, split, partial);
}

struct Gradients {
  std::vector<float> weights, bias;
};

Gradients Emulated(const ConvolutionProblem& problem, const Operands& operands) {
  const Stem g = {static_cast<int>(problem.n), static_cast<int>(problem.h), static_cast<int>(problem.w)};
  std::vector<float> partial(static_cast<size_t>(StemSplits(g)) * kStemSums, NAN);
  for (int split = 0; split < StemSplits(g); ++split) Block(g, split, operands, partial);
  Gradients gradients = {std::vector<float>(SizesOf(problem).d / sizeof(float)),
                         std::vector<float>(kStemFilters)};
  for (size_t i = 0; i < partial.size(); ++i) {
    const int at = static_cast<int>(i % kStemSums);
    float& sum = at < kStemWeights ? gradients.weights.at(static_cast<size_t>(StoredWeight(at)))
                                   : gradients.bias.at(static_cast<size_t>(at - kStemWeights));
    sum += partial[i];
  }
  return gradients;
}

Gradients Expected(const ConvolutionProblem& problem, Operands& operands) {
  Gradients gradients = {std::vector<float>(SizesOf(problem).d / sizeof(float)),
                         std::vector<float>(kStemFilters)};
  const auto device = testing::MakeHostCudaDevice();
  const auto plan = AsCuda(*device).Plan(problem);
  EXPECT_TRUE(plan.ok()) << plan.status();
  (*plan)->Run({.a = operands.x.data(),
                .b = operands.dy.data(),
                .d = gradients.weights.data(),
                .sums = gradients.bias.data(),
                .argmax = operands.positions.data()});
  return gradients;
}

// Positions are any of the window that is inside the map, or none.
template <class Draw>
Operands MakeOperands(const ConvolutionProblem& p, std::minstd_rand& generator, const Draw& draw) {
  Operands operands = {draw(SizesOf(p).a / sizeof(bf16)), draw(SizesOf(p).b / sizeof(bf16)),
                       std::vector<uint8_t>(SizesOf(p).argmax)};
  for (size_t i = 0; i < operands.x.size(); ++i) {
    if (i % kStoredChannels >= kStemChannels) operands.x[i] = {};
  }
  std::uniform_int_distribution<int> any(0, kNoMaximum);
  for (size_t i = 0; i < operands.positions.size(); ++i) {
    const auto window = static_cast<int64_t>(i) / p.k;
    const auto is_inside = [&](int place) {
      const int64_t row = window / p.y_w() % p.y_h() * 2 - 1 + place / 3,
                    column = window % p.y_w() * 2 - 1 + place % 3;
      return place == kNoMaximum || (row >= 0 && row < p.out_h() && column >= 0 && column < p.out_w());
    };
    int place = any(generator);
    while (!is_inside(place)) place = any(generator);
    operands.positions[i] = static_cast<uint8_t>(place);
  }
  return operands;
}

// In the last case, a block goes from the last band of an image to the first of the next one.
TEST(StemGradientTest, WholeNumbersAgreeBitForBit) {
  std::minstd_rand generator;
  for (const auto& [n, h, w] :
       {std::array{1, 224, 224}, {1, 61, 197}, {3, 33, 33}, {1, 9, 450}, {20, 66, 31}}) {
    const ConvolutionProblem problem = Problem(n, h, w);
    SCOPED_TRACE(ToString(problem));
    Operands operands =
        MakeOperands(problem, generator, [&](size_t count) { return WholeNumbers(count, generator); });
    const Gradients expected = Expected(problem, operands), found = Emulated(problem, operands);
    EXPECT_TRUE(found.weights == expected.weights);
    EXPECT_TRUE(found.bias == expected.bias);
  }
}

TEST(StemGradientTest, RealNumbersAgreeUpToRounding) {
  std::minstd_rand generator;
  std::uniform_real_distribution<float> uniform(-1, 1);
  const ConvolutionProblem problem = Problem(3, 47, 65);
  Operands operands = MakeOperands(problem, generator, [&](size_t count) {
    std::vector<bf16> numbers(count);
    for (bf16& number : numbers) number = ToBf16(uniform(generator));
    return numbers;
  });
  const Gradients expected = Expected(problem, operands), found = Emulated(problem, operands);
  for (size_t i = 0; i < expected.weights.size(); ++i)
    ASSERT_NEAR(found.weights[i], expected.weights[i], 1e-3) << i;
  for (size_t i = 0; i < expected.bias.size(); ++i) ASSERT_NEAR(found.bias[i], expected.bias[i], 1e-3) << i;
}

}  // namespace
}  // namespace deeper::conv
