// Compares whole networks at their real size on the test's device with the CPU: every shape of training.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "data/load/loader.h"
#include "data/load/synthetic.h"
#include "tests/kernels/test_device.h"
#include "trainer/engine/network.h"
#include "trainer/engine/params.h"
#include "trainer/models/model.h"

namespace deeper {
namespace {

using testing::TestDevice;

struct Result {
  std::vector<double> losses;                 // [head]
  std::vector<std::vector<float>> gradients;  // [parameter], as in files
};

Result ForwardAndBackward(const Model& model, DType precision, const Dataset& dataset, Device& device) {
  auto net = *Network::Prepare(model, {.rows = 1, .precision = precision, .training = true}, device);
  auto params = *ParamStore::Create(net->Params(), device, /*training=*/true, net->wants_narrow_params());
  params->Initialize(1);
  EXPECT_TRUE(net->Bind(*params).ok());
  LoaderOptions input;
  input.global_batch = 1;
  input.augment = Augment::kInception;
  net->Configure(input);
  auto loader = *MakeLoader(dataset, input);
  net->Load(*loader->Next(), /*seed=*/2);
  net->Forward();
  net->Backward([](size_t) {});
  device.Synchronize();
  Result result;
  for (const HeadResult& head : net->results()) result.losses.push_back(head.loss_sum);
  for (const Param& param : params->trained()) {
    std::vector<float>& gradient = result.gradients.emplace_back(static_cast<size_t>(param.spec.elements()));
    params->Read(param, params->grads(), gradient.data());
  }
  return result;
}

struct Case {
  std::string model;
  DType precision;
};

class DeviceNetwork : public ::testing::TestWithParam<Case> {};

TEST_P(DeviceNetwork, MatchesTheCpuAtFullSize) {
  if (TestDevice().type() == DeviceType::kCpu) GTEST_SKIP() << "the CPU is what the others are compared with";
  const auto& [name, precision] = GetParam();
  ModelOptions options;
  options.num_classes = 1000;
  const Model model = *MakeModel(name, options);
  const auto dataset = MakeSyntheticDataset({.samples = 4, .height = 300, .width = 260, .classes = 1000});
  const auto cpu = MakeCpuDevice();
  const Result expected = ForwardAndBackward(model, DType::kF32, *dataset, *cpu);
  const Result actual = ForwardAndBackward(model, precision, *dataset, TestDevice());

  const bool fp32 = precision == DType::kF32;
  ASSERT_EQ(actual.losses.size(), expected.losses.size());
  for (size_t i = 0; i < expected.losses.size(); ++i)
    EXPECT_NEAR(actual.losses[i], expected.losses[i], (fp32 ? 1e-4 : 3e-2) * expected.losses[i])
        << "head " << i;
  // Rounding (the CPU uses Winograd) flips a few ReLUs and maxima. A flip changes all gradients before it.
  const double tolerance = fp32 ? 2e-2 : 0.35;
  const auto params = (*Network::Prepare(model, {.rows = 1}, *cpu))->Params();
  size_t i = 0;
  for (const Param& param : params) {
    if (IsStatistic(param.spec.role)) continue;
    double difference = 0, norm = 0;
    for (size_t j = 0; j < expected.gradients[i].size(); ++j) {
      difference += std::pow(double{actual.gradients[i][j]} - expected.gradients[i][j], 2);
      norm += std::pow(double{expected.gradients[i][j]}, 2);
    }
    EXPECT_LE(std::sqrt(difference), tolerance * std::sqrt(norm)) << param.name;
    ++i;
  }
  EXPECT_EQ(i, expected.gradients.size());
}

INSTANTIATE_TEST_SUITE_P(, DeviceNetwork,
                         ::testing::Values(Case{"googlenet", DType::kF32}, Case{"googlenet", DType::kBf16},
                                           Case{"nin", DType::kF32}),
                         [](const auto& test) {
                           return test.param.model + "_" + NameOf(test.param.precision);
                         });

}  // namespace
}  // namespace deeper
