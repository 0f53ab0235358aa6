#include "trainer/engine/optimizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "kernels/base/bf16.h"

namespace deeper {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::FloatEq;

std::vector<Param> OneWeight() {
  Param param;
  param.name = "w";
  param.spec = {"w", {4, 4}, ParamRole::kWeight, Init::kOne};
  param.layout = MakeParamLayout(param.spec, 1);
  return {param};
}

// The weights after two steps at the rates 0.5 and 0.25 with gradients of 1, from weights of 1.
std::vector<float> AfterTwoSteps(const OptimizerOptions& options) {
  const auto device = MakeCpuDevice(1);
  const auto params = *ParamStore::Create(OneWeight(), *device, /*training=*/true, /*narrow=*/false,
                                          {OptimizerState(options.name)});
  params->Initialize(1);
  std::fill_n(params->grads(), 16, 1.0f);
  Optimizer optimizer(options, *params, *device);
  for (const float lr : {0.5f, 0.25f}) {
    optimizer.BeginStep(lr);
    optimizer.Step();
  }
  return {params->values(), params->values() + 16};
}

TEST(Optimizer, EveryNameTakesSteps) {
  EXPECT_THAT(OptimizerNames(), Contains("sgd"));
  for (const std::string& name : OptimizerNames())
    EXPECT_THAT(AfterTwoSteps({.name = name}), Each(testing::Lt(1.0f))) << name;
}

TEST(Optimizer, RatesAndMomentumAreThoseOfTheStep) {
  // Momentum 1, then 1.5.
  EXPECT_THAT(AfterTwoSteps({.name = "sgd", .momentum = 0.5f}), Each(FloatEq(1 - 0.5f - 0.25f * 1.5f)));
  // Steps of 1 + 0.5 * 1 and 1 + 0.5 * 1.5.
  EXPECT_THAT(AfterTwoSteps({.name = "nesterov", .momentum = 0.5f}),
              Each(FloatEq(1 - 0.5f * 1.5f - 0.25f * 1.75f)));
}

TEST(Optimizer, KeepsAveragesOfValuesAndStatistics) {
  Param statistic = OneWeight()[0];
  statistic.name = statistic.spec.name = "mean";
  statistic.spec.role = ParamRole::kRunningMean;
  std::vector<Param> both = OneWeight();
  both.push_back(statistic);
  const auto device = MakeCpuDevice(1);
  StateArenas arenas{OptimizerState("sgd")};
  arenas.averages = true;
  const auto params =
      *ParamStore::Create(both, *device, /*training=*/true, /*narrow=*/true, std::move(arenas));
  params->Initialize(1);
  params->StartAverages();
  std::fill_n(params->grads(), 16, 1.0f);
  Optimizer optimizer({.momentum = 0, .first_step = 7, .ema_decay = 0.5f}, *params, *device);
  optimizer.BeginStep(0.5f);
  params->statistic_values()[3] = 8;
  optimizer.Step();
  // Step 8: decay 0.5, less than (1 + 8) / (10 + 8) is not.
  const auto values = [&] { return std::vector<float>(params->values(), params->values() + 16); };
  EXPECT_THAT(values(), Each(0.5f));
  EXPECT_EQ(params->averages()[0], 0.75f);
  EXPECT_EQ(params->statistic_averages()[3], (8 + 1) / 2.0f);

  params->ExchangeAverages();
  EXPECT_THAT(values(), Each(0.75f));
  EXPECT_EQ(params->statistic_values()[3], 4.5f);
  EXPECT_EQ(params->averages()[0], 0.5f);
  EXPECT_EQ(static_cast<const bf16*>(params->narrow_values())[0].bits, ToBf16(0.75f).bits);
  params->ExchangeAverages();
  EXPECT_THAT(values(), Each(0.5f));
  EXPECT_EQ(params->statistic_values()[3], 8);
  EXPECT_EQ(static_cast<const bf16*>(params->narrow_values())[0].bits, ToBf16(0.5f).bits);
}

TEST(Optimizer, PatternsScaleTheRateOfParameters) {
  std::vector<Param> several;
  for (const char* name : {"conv1.weight", "conv2.weight", "fc.weight"}) {
    several.push_back(OneWeight()[0]);
    several.back().name = several.back().spec.name = name;
  }
  const auto device = MakeCpuDevice(1);
  const auto params =
      *ParamStore::Create(several, *device, /*training=*/true, /*narrow=*/false, {OptimizerState("sgd")});
  params->Initialize(1);
  std::fill_n(params->grads(), 48, 1.0f);
  const auto scales = LrScalesOf({{"*", 3}, {"conv*", 0}, {"conv2.*", 2}}, *params);
  ASSERT_TRUE(scales.ok()) << scales.status();
  Optimizer optimizer({.name = "sgd", .lr_scales = *scales}, *params, *device);
  optimizer.BeginStep(0.125f);
  optimizer.Step();
  const float* w = params->values();
  EXPECT_THAT(std::vector<float>(w, w + 16), Each(1.0f));
  EXPECT_THAT(std::vector<float>(w + 16, w + 32), Each(0.75f));
  EXPECT_THAT(std::vector<float>(w + 32, w + 48), Each(0.625f));

  EXPECT_TRUE(LrScalesOf({}, *params)->empty());
  EXPECT_THAT(std::string(LrScalesOf({{"conv3*", 1}}, *params).status().message()),
              ::testing::HasSubstr("no parameter matches conv3*"));
}

TEST(OptimizerDeathTest, WantsParametersWithItsState) {
  const auto device = MakeCpuDevice(1);
  const auto params = *ParamStore::Create(OneWeight(), *device, /*training=*/true);
  EXPECT_DEATH(Optimizer({}, *params, *device), "state_names");
}

}  // namespace
}  // namespace deeper
