#include "kernels/ops/inception/inception.h"

#include <gmock/gmock.h>

#include "tests/kernels/ops/inception_reference.h"
#include "tests/kernels/ops/op_test.h"

namespace deeper::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr InceptionParams kWhole = {.c1 = 16, .c2_reduce = 16, .c2 = 32, .c3_reduce = 16, .c3 = 16, .c4 = 16};
constexpr InceptionParams kPartial = {.c1 = 5, .c2_reduce = 7, .c2 = 18, .c3_reduce = 3, .c3 = 9, .c4 = 6};
constexpr InceptionParams kNaive = {.c1 = 16, .c2 = 16, .c3 = 16};

void Check(const InceptionParams& p, const Shape& x, CheckOptions options = {}) {
  options.samples = 8;  // CheckAllGradients checks every element
  CheckOp(p, x, DType::kF32, InceptionReference(p, x, options.op.training), options);
}

void CheckAllGradients(const InceptionParams& p, const Shape& shape, DType dtype, int dy_parts,
                       bool want_dx = true) {
  OpDriver driver(p, TestDevice().FeatureMap(shape, dtype), {.name = "3a", .want_dx = want_dx}, TestDevice(),
                  dy_parts);
  std::vector<Values> params, dy;
  std::vector<Doubles> params64;
  for (const ParamSpec& spec : driver.shape().params) {
    params.push_back(RandomValues(spec.elements(), 10 + params.size()));
    const float spread = spec.shape.size() > 1 ? 2 / std::sqrt(static_cast<float>(spec.fan_in())) : 1;
    for (float& w : params.back()) w = ToFloat(ToBf16(w * spread));
    params64.push_back(ToDoubles(params.back()));
  }
  const Values x = RandomValues(shape.elements(), 1, dtype);
  NaiveTensor dy64 = NaiveZeros(driver.shape().y);
  for (int i = 0; i < dy_parts; ++i) {
    dy.push_back(RandomValues(dy64.shape.elements(), 50 + static_cast<uint64_t>(i), dtype));
    std::transform(dy64.values.begin(), dy64.values.end(), dy.back().begin(), dy64.values.begin(),
                   std::plus<>());
  }
  driver.SetParams(params);

  // bf16: about one of 1000 ReLUs near zero switches, hence the square root of that.
  const double tolerance = dtype == DType::kF32 ? 1e-5 : 6e-2;
  ExpectNormClose(driver.Forward(x), InceptionReference(p, shape, true)(ToDoubles(x), params64), tolerance,
                  "y");
  const InceptionGradients expected = NaiveBackward(p, {shape, ToDoubles(x)}, params64, dy64);
  const Values dx = driver.Backward(dy);
  if (want_dx) ExpectNormClose(dx, expected.x, tolerance, "dx");
  for (size_t i = 0; i < params.size(); ++i) {
    ExpectNormClose(driver.Grad(i), expected.params[i], tolerance, driver.shape().params[i].name);
  }
}

class InceptionTest : public ::testing::TestWithParam<DType> {};

TEST_P(InceptionTest, WholeBlocks) {
  CheckAllGradients(kWhole, {3, 32, 14, 14}, GetParam(), 1);
  CheckAllGradients(kWhole, {1, 48, 7, 7}, GetParam(), 4);
}
TEST_P(InceptionTest, PartialBlocks) {
  CheckAllGradients(kPartial, {1, 24, 7, 5}, GetParam(), 1);
  CheckAllGradients(kPartial, {2, 16, 8, 8}, GetParam(), 3);
}
TEST_P(InceptionTest, NaiveModule) {
  CheckAllGradients(kNaive, {2, 16, 7, 7}, GetParam(), 2);
  CheckAllGradients({.c1 = 5, .c2 = 6, .c3 = 7}, {3, 10, 6, 6}, GetParam(), 1);
}
TEST_P(InceptionTest, WithoutInputGradient) {
  CheckAllGradients(kWhole, {2, 16, 7, 7}, GetParam(), 2, /*want_dx=*/false);
}

INSTANTIATE_TEST_SUITE_P(Types, InceptionTest, ::testing::ValuesIn(TestTypes()),
                         [](const auto& param_info) { return NameOf(param_info.param); });

TEST(Inception, FiniteDifferences) {
  Check(kWhole, {1, 32, 5, 5});
  Check(kPartial, {1, 24, 7, 5});
  Check(kNaive, {1, 16, 5, 5}, {.dy_parts = 2});
}

TEST(Inception, BatchNorm) {
  InceptionParams p = kWhole;
  p.batch_norm = true;
  p.branch3_kernel = 3;
  Check(p, {2, 16, 4, 4}, {.dy_parts = 2});
  Check(p, {2, 16, 5, 5}, {.op = {.name = "eval", .training = false}});
}

TEST(Inception, Evaluation) {
  Check(kWhole, {2, 16, 5, 5}, {.op = {.name = "eval", .training = false}});
}

std::vector<std::string> WeightNames(const InceptionParams& params) {
  std::vector<std::string> names;
  const OpShape shape = Infer(params, {1, 192, 28, 28}).value();
  for (const ParamSpec& spec : shape.params) {
    if (spec.role == ParamRole::kWeight) names.push_back(spec.name);
  }
  return names;
}

TEST(Inception, DescribesModule3a) {
  const OpShape shape =
      Infer(InceptionParams{.c1 = 64, .c2_reduce = 96, .c2 = 128, .c3_reduce = 16, .c3 = 32, .c4 = 32},
            {2, 192, 28, 28})
          .value();
  EXPECT_EQ(shape.y, (Shape{2, 256, 28, 28}));
  int64_t parameters = 0;
  for (const ParamSpec& spec : shape.params) parameters += spec.elements();
  EXPECT_EQ(parameters, 163696);
  EXPECT_EQ(shape.macs, int64_t{2} * 784 * (192 * (64 + 96 + 16 + 32) + 96 * 128 * 9 + 16 * 32 * 25));
  EXPECT_EQ(shape.inner_elements, int64_t{2} * 784 * (96 + 16 + 192));
  EXPECT_THAT(WeightNames(kWhole),
              ElementsAre("branch1.conv.weight", "branch2.0.conv.weight", "branch2.1.conv.weight",
                          "branch3.0.conv.weight", "branch3.1.conv.weight", "branch4.1.conv.weight"));
  EXPECT_THAT(WeightNames(kNaive),
              ElementsAre("branch1.conv.weight", "branch2.conv.weight", "branch3.conv.weight"));
}

TEST(Inception, TrustsAMaskedGradient) {
  InceptionParams p = kWhole;
  p.dy_is_masked = true;
  OpDriver driver(p, TestDevice().FeatureMap({1, 16, 4, 4}, DType::kF32), {.name = "i"}, TestDevice());
  std::vector<Values> zeros;
  for (const ParamSpec& spec : driver.shape().params)
    zeros.emplace_back(static_cast<size_t>(spec.elements()));
  driver.SetParams(zeros);  // all outputs are zero
  driver.Forward(RandomValues(256, 1));
  EXPECT_FALSE(driver.op().needs().backward_reads_y);
  driver.Backward({Values(static_cast<size_t>(driver.shape().y.elements()), 1)});
  EXPECT_EQ(driver.Grad(1), Values(16, 16));  // branch1.conv.bias
}

TEST(Inception, SaysWhatDoesNotFit) {
  EXPECT_THAT(
      std::string(Infer(InceptionParams{.c1 = 0, .c2 = 8, .c3 = 8}, {1, 16, 4, 4}).status().message()),
      HasSubstr("c1 0"));
  InceptionParams even = kWhole;
  even.branch3_kernel = 4;
  EXPECT_THAT(std::string(Infer(even, {1, 16, 4, 4}).status().message()), HasSubstr("branch3_kernel 4 odd"));
  const auto plain = MakeOp(kWhole, {{1, 16, 4, 4}}, {.name = "3a"}, TestDevice());
  EXPECT_THAT(std::string(plain.status().message()), HasSubstr("inception 3a: x must be a feature map"));
}

}  // namespace
}  // namespace deeper::testing
