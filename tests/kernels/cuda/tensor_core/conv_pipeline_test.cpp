// The pipelines of the tensor core convolutions have no fault, in any order in which the threads of a block
// run (pipeline_model.h). pipeline_mutants.py shows that the model finds faults.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "kernels/cuda/tensor_core/conv_kernels.h"
#include "tests/kernels/cuda/tensor_core/copy_model.h"
#include "tests/kernels/cuda/tensor_core/pipeline_model.h"

namespace deeper::conv {
namespace {

// The most steps of a convolution of GoogLeNet, which reads 384 channels: of a tap of a 3x3, of a row.
constexpr int kMostTaps = 54, kMostRows = 18;

// Tries pipelines of up to more than two rounds of the stages, after which the parities are as at first, and
// the longest one. Returns the number of states.
template <bool kBackward, int kAcross, int... kColumns>
int64_t CheckTiles(Sizes<kColumns...>) {
  int64_t states = 0;
  const auto check = [&]<int kTileColumns>() {
    constexpr int kStages = Sm90Layout<kBackward, kTileColumns, kAcross>::kStages;
    constexpr int kMost = kAcross == 1 ? kMostTaps : kMostRows;
    for (int deep = 1; deep * kAcross <= kMost; ++deep) {
      if (deep * kAcross > 2 * kStages + 2 && (deep + 1) * kAcross <= kMost) continue;
      const Gemm g = {.height = 9,
                      .width = 7,
                      .depth = deep * kStepDepth - 8,
                      .columns = kTileColumns,
                      .kernel = kAcross};
      EXPECT_EQ((FaultOfBarriers<kBackward, kTileColumns, kAcross>(g, &states)), "")
          << kTileColumns << " columns, " << kAcross << " taps, " << g.depth << " channels";
    }
  };
  (check.template operator()<kColumns>(), ...);
  return states;
}

TEST(ConvPipelineTest, BarriersAllowNoFaultWithOneTap) {
  EXPECT_GT((CheckTiles<false, 1>(Sm90Tiles<1, false>())), 100'000);
  EXPECT_GT((CheckTiles<true, 1>(Sm90Tiles<1, true>())), 100'000);
}
TEST(ConvPipelineTest, BarriersAllowNoFaultWithRows) {
  EXPECT_GT((CheckTiles<false, 3>(Sm90Tiles<3, false>())), 1'000);
  EXPECT_GT((CheckTiles<true, 3>(Sm90Tiles<3, true>())), 1'000);
  EXPECT_GT((CheckTiles<false, 5>(Sm90Tiles<5, false>())), 1'000);
  EXPECT_GT((CheckTiles<true, 5>(Sm90Tiles<5, true>())), 1'000);
}

template <int... kChannels>
int64_t CheckGradients(Sizes<kChannels...>) {
  int64_t states = 0;
  const auto check = [&]<int kTileChannels>() {
    constexpr int kStages = DwLayout<kTileChannels>::kStages;
    for (int steps = 1; steps <= 2 * kStages + 2; ++steps) {
      EXPECT_EQ(FaultOfDwBarriers<kTileChannels>(steps, &states), "") << kTileChannels << ", " << steps;
    }
    EXPECT_EQ(FaultOfDwBarriers<kTileChannels>(kMostTaps, &states), "") << kTileChannels;
  };
  (check.template operator()<kChannels>(), ...);
  return states;
}

TEST(ConvPipelineTest, BarriersAllowNoFaultOfGradients) {
  EXPECT_GT(CheckGradients(DwChannels()), 100'000);
}

TEST(ConvPipelineTest, EpochsAllowNoFault) {
  for (int steps = 1; steps <= 300; ++steps) {
    EXPECT_EQ(FaultOfCopies(steps), "") << steps;
    EXPECT_EQ(FaultOfBands(steps), "") << steps;
  }
}

}  // namespace
}  // namespace deeper::conv
