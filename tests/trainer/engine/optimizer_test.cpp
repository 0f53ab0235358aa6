#include "trainer/engine/optimizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
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

TEST(Optimizer, OnlyWeightsDecay) {
  constexpr ParamRole kRoles[] = {ParamRole::kWeight, ParamRole::kBias, ParamRole::kScale, ParamRole::kShift};
  std::vector<Param> several;
  for (const ParamRole role : kRoles) {
    several.push_back(OneWeight()[0]);
    several.back().spec.role = role;
  }
  const auto device = MakeCpuDevice(1);
  const auto params =
      *ParamStore::Create(several, *device, /*training=*/true, /*narrow=*/false, {OptimizerState("sgd")});
  params->Initialize(1);  // ones, and gradients of 0
  Optimizer optimizer({.weight_decay = 0.25f}, *params, *device);
  optimizer.BeginStep(0.5f);
  optimizer.Step();
  for (int i = 0; i < 4; ++i) EXPECT_EQ(params->values()[16 * i], i == 0 ? 1 - 0.5f * 0.25f : 1);
}

// You et al. 2017, with the rate outside the momentum. A bias has no trust ratio.
TEST(Optimizer, LarsScalesTheGradientOfEachWeight) {
  std::vector<Param> several;
  for (const char* name : {"conv1.weight", "conv1.bias", "fc.weight"}) {
    several.push_back(OneWeight()[0]);
    several.back().name = several.back().spec.name = name;
  }
  several[1].spec.role = ParamRole::kBias;
  const auto device = MakeCpuDevice(1);
  const auto params =
      *ParamStore::Create(several, *device, /*training=*/true, /*narrow=*/false, {OptimizerState("lars")});
  params->Initialize(1);
  const float gradients[] = {1, 2, 4};
  for (int i = 0; i < 48; ++i) params->grads()[i] = gradients[i / 16];
  Optimizer optimizer({.name = "lars", .momentum = 0.5f, .weight_decay = 0.25f, .lars_trust = 0.125f},
                      *params, *device);
  double w[] = {1, 1, 1}, m[] = {0, 0, 0};
  for (const float lr : {0.5f, 0.25f}) {
    optimizer.BeginStep(lr);
    optimizer.Step();
    for (const int i : {0, 1, 2}) {
      const bool bias = i == 1;
      const double g = gradients[i],
                   ratio = bias ? 1 : 0.125 * w[i] / (g + 0.25 * w[i]);  // all elements are equal
      m[i] = 0.5 * m[i] + ratio * (g + (bias ? 0 : 0.25 * w[i]));
      w[i] -= double{lr} * m[i];
      EXPECT_THAT(std::vector<float>(params->values() + 16 * i, params->values() + 16 * i + 16),
                  Each(testing::FloatNear(static_cast<float>(w[i]), 1e-6f)));
    }
  }
}

// Biases of a run, such as those of the 1x1 convolutions of an Inception module, may share a decay group.
TEST(Optimizer, LarsUpdatesBiasesOfARunAsSgd) {
  std::vector<Param> params = OneWeight();
  for (int i = 0; i < 2; ++i) {
    Param bias;
    bias.name = absl::StrCat("bias", i);
    bias.spec = {bias.name, {i == 0 ? 8 : 24}, ParamRole::kBias, Init::kOne};
    bias.layout = MakeParamLayout(bias.spec, 1);
    bias.run = 0;
    bias.place = i;
    params.push_back(bias);
  }
  const auto device = MakeCpuDevice(1);
  const auto store =
      *ParamStore::Create(params, *device, /*training=*/true, /*narrow=*/false, {OptimizerState("lars")});
  store->Initialize(1);
  std::fill_n(store->grads(), store->trained_elements(), 1.0f);
  Optimizer optimizer({.name = "lars"}, *store, *device);
  optimizer.BeginStep(0.5f);
  optimizer.Step();
  EXPECT_THAT(std::vector<float>(store->values(), store->values() + 16), Each(FloatEq(0.9995f)));
  EXPECT_THAT(std::vector<float>(store->values() + 16, store->values() + 48), Each(FloatEq(0.5f)));
}

TEST(OptimizerDeathTest, WantsParametersWithItsState) {
  const auto device = MakeCpuDevice(1);
  const auto params = *ParamStore::Create(OneWeight(), *device, /*training=*/true);
  EXPECT_DEATH(Optimizer({}, *params, *device), "state_names");
}

}  // namespace
}  // namespace deeper
