// Compares fused modules with the same module of separate ops, and with the definition.
#include <gmock/gmock.h>

#include "kernels/ops/inception/inception.h"
#include "kernels/ops/inception/inception_buffer.h"
#include "tests/kernels/ops/inception_reference.h"
#include "tests/kernels/ops/op_test.h"

namespace deeper::testing {
namespace {

struct Module {
  const char* name;
  int64_t channels;
  InceptionParams params;
};

// The modules of trainer/models/googlenet.cpp, and one with the smallest sizes that are fused.
const Module kModules[] = {
    {"3a", 192, {.c1 = 64, .c2_reduce = 96, .c2 = 128, .c3_reduce = 16, .c3 = 32, .c4 = 32}},
    {"3b", 256, {.c1 = 128, .c2_reduce = 128, .c2 = 192, .c3_reduce = 32, .c3 = 96, .c4 = 64}},
    {"4a", 480, {.c1 = 192, .c2_reduce = 96, .c2 = 208, .c3_reduce = 16, .c3 = 48, .c4 = 64}},
    {"4b", 512, {.c1 = 160, .c2_reduce = 112, .c2 = 224, .c3_reduce = 24, .c3 = 64, .c4 = 64}},
    {"4c", 512, {.c1 = 128, .c2_reduce = 128, .c2 = 256, .c3_reduce = 24, .c3 = 64, .c4 = 64}},
    {"4d", 512, {.c1 = 112, .c2_reduce = 144, .c2 = 288, .c3_reduce = 32, .c3 = 64, .c4 = 64}},
    {"4e", 528, {.c1 = 256, .c2_reduce = 160, .c2 = 320, .c3_reduce = 32, .c3 = 128, .c4 = 128}},
    {"5a", 832, {.c1 = 256, .c2_reduce = 160, .c2 = 320, .c3_reduce = 32, .c3 = 128, .c4 = 128}},
    {"5b", 832, {.c1 = 384, .c2_reduce = 192, .c2 = 384, .c3_reduce = 48, .c3 = 128, .c4 = 128}},
    {"3a_bn",
     192,
     {.c1 = 64, .c2_reduce = 96, .c2 = 128, .c3_reduce = 16, .c3 = 32, .c4 = 32, .batch_norm = true}},
    {"4b_bn",
     512,
     {.c1 = 160,
      .c2_reduce = 112,
      .c2 = 224,
      .c3_reduce = 24,
      .c3 = 64,
      .c4 = 64,
      .branch3_kernel = 3,
      .batch_norm = true}},
    {"least", 8, {.c1 = 8, .c2_reduce = 8, .c2 = 8, .c3_reduce = 8, .c3 = 8, .c4 = 8}},
};

struct Outcome {
  Values y, dx;
  std::vector<Values> gradients;  // of parameters; for a statistic its new value
};

// The inputs of a module.
struct Input {
  Values x;
  std::vector<Values> params, dy;
  PooledPart pooled;  // an additional part of dy, from a pool of y
  Values pooled_dy;
  std::vector<uint8_t> argmax;
};

// Draws from few values, so that most windows of the pool have ties.
Values TieHeavyValues(int64_t count, uint64_t seed) {
  Values values = RandomValues(count, seed);
  for (float& v : values) v = std::round(2 * v) / 2;
  return values;
}

Input MakeInput(const Module& module, const Shape& shape, DType dtype) {
  const OpShape op = Infer(module.params, shape).value();
  Input input;
  input.x = TieHeavyValues(shape.elements(), 1);
  for (const ParamSpec& spec : op.params) {
    input.params.push_back(RandomValues(spec.elements(), 10 + input.params.size()));
    const float spread = spec.shape.size() > 1 ? 2 / std::sqrt(static_cast<float>(spec.fan_in())) : 1;
    for (float& w : input.params.back()) w = ToFloat(ToBf16(w * spread));
  }
  for (uint64_t seed : {50, 51}) input.dy.push_back(RandomValues(op.y.elements(), seed, dtype));
  // As for the pool of stride 2 that follows 3b and 4e. The positions of its maxima are arbitrary here.
  const int64_t h = (op.y.h - 1) / 2 + 1, w = (op.y.w - 1) / 2 + 1;
  input.pooled = {TestDevice().FeatureMap({op.y.n, op.y.c, h, w}, dtype), 3, 2, 1};
  input.pooled_dy = RandomValues(input.pooled.desc.shape.elements(), 60, dtype);
  input.argmax.resize(input.pooled_dy.size());
  for (size_t i = 0; i < input.argmax.size(); ++i) {
    // In NHWC: each pixel of the window in turn, or its centre, which is inside every image.
    const int64_t window = static_cast<int64_t>(i) / op.y.c, place = static_cast<int64_t>(i * 7 / 2 % 9);
    const int64_t row = window / w % h * 2 - 1 + place / 3, column = window % w * 2 - 1 + place % 3;
    const bool inside = row >= 0 && row < op.y.h && column >= 0 && column < op.y.w;
    input.argmax[i] = static_cast<uint8_t>(inside ? place : 4);
  }
  return input;
}

Outcome ForwardAndBackward(const Module& module, const TensorDesc& x, const Input& input,
                           const OpOptions& options) {
  OpDriver driver(module.params, x, options, TestDevice(), static_cast<int>(input.dy.size()));
  driver.SetParams(input.params);
  Outcome outcome;
  std::vector<Values> dy = input.dy;
  if (options.fuse) {
    driver.SetPooledGradient(input.pooled, input.pooled_dy, input.argmax);
  } else {
    AddSpread(input.pooled, input.pooled_dy, input.argmax, driver.shape().y, dy.back());
  }
  outcome.y = driver.Forward(input.x);
  outcome.dx = driver.Backward(dy);
  const auto gradient = [&driver](size_t i) {
    return IsStatistic(driver.shape().params[i].role) ? driver.Param(i) : driver.Grad(i);
  };
  for (size_t i = 0; i < input.params.size(); ++i) outcome.gradients.push_back(gradient(i));
  // A second run gives the same bits.
  driver.SetParams(input.params);
  EXPECT_EQ(driver.Forward(input.x), outcome.y);
  EXPECT_EQ(driver.Backward(dy), outcome.dx);
  for (size_t i = 0; i < input.params.size(); ++i) EXPECT_EQ(gradient(i), outcome.gradients[i]);
  return outcome;
}

struct Case {
  Module module;
  DType dtype;
};

class FusedInception : public ::testing::TestWithParam<Case> {};
class FusedInceptionDefinition : public FusedInception {};

TEST_P(FusedInception, MatchesSeparateOps) {
  const auto& [module, dtype] = GetParam();
  for (const Shape& shape :
       {Shape{1, module.channels, 7, 7}, Shape{3, module.channels, 2, 3}, Shape{2, module.channels, 4, 2}}) {
    SCOPED_TRACE(shape.ToString());
    const Input input = MakeInput(module, shape, dtype);
    const TensorDesc dense = TestDevice().FeatureMap(shape, dtype);
    TensorDesc slice = dense;
    slice.pitch = module.channels + 64;
    slice.first = 16;
    OpOptions options = {.name = module.name};
    const Outcome expected = ForwardAndBackward(module, dense, input, options);
    options.fuse = true;
    for (const TensorDesc& x : {dense, slice}) {
      for (const bool pooled : {false, true}) {
        options.x_takes_pooled_gradients = pooled;
        const Outcome actual = ForwardAndBackward(module, x, input, options);
        const double tolerance = dtype == DType::kF32 ? 1e-5 : 2e-2;
        ExpectNormClose(actual.y, ToDoubles(expected.y), tolerance, "y");
        ExpectNormClose(actual.dx, ToDoubles(expected.dx), tolerance, "dx");
        for (size_t i = 0; i < expected.gradients.size(); ++i) {
          ExpectNormClose(actual.gradients[i], ToDoubles(expected.gradients[i]), tolerance,
                          "gradient " + std::to_string(i));
        }
      }
    }
  }
}

TEST_P(FusedInceptionDefinition, Matches) {
  const auto& [module, dtype] = GetParam();
  const Shape shape = {1, module.channels, 5, 3};
  const Input input = MakeInput(module, shape, dtype);
  OpDriver driver(module.params, TestDevice().FeatureMap(shape, dtype),
                  {.name = module.name, .x_takes_pooled_gradients = true, .fuse = true}, TestDevice());
  driver.SetParams(input.params);
  ASSERT_GT(driver.op().needs().y.pitch, 0) << "not fused";
  std::vector<Doubles> params;
  for (const Values& p : input.params) params.push_back(ToDoubles(p));
  // bf16: one ReLU that switches has a large weight among the few outputs of a narrow branch.
  const double tolerance = dtype == DType::kF32 ? 1e-5 : 0.12;
  ExpectNormClose(driver.Forward(input.x),
                  InceptionReference(module.params, shape, true)(ToDoubles(input.x), params), tolerance, "y");
  const InceptionGradients expected = NaiveBackward(module.params, {shape, ToDoubles(input.x)}, params,
                                                    {driver.shape().y, ToDoubles(input.dy[0])});
  ExpectNormClose(driver.Backward({input.dy[0]}), expected.x, tolerance, "dx");
  for (size_t i = 0; i < params.size(); ++i)
    ExpectNormClose(driver.Grad(i), expected.params[i], tolerance, driver.shape().params[i].name);
}

std::vector<Case> Cases(bool with_batch_norm) {
  std::vector<Case> cases;
  for (const Module& module : kModules) {
    if (module.params.batch_norm && !with_batch_norm) continue;
    for (const DType dtype : {DType::kF32, DType::kBf16}) cases.push_back({module, dtype});
  }
  return cases;
}

std::string NameOfCase(const ::testing::TestParamInfo<Case>& test) {
  return std::string("inception") + test.param.module.name + "_" + NameOf(test.param.dtype);
}

INSTANTIATE_TEST_SUITE_P(, FusedInception, ::testing::ValuesIn(Cases(true)), NameOfCase);
// Other tests cover batch norm as a separate op.
INSTANTIATE_TEST_SUITE_P(, FusedInceptionDefinition, ::testing::ValuesIn(Cases(false)), NameOfCase);

TEST(FusedInceptionOp, InferenceWithoutInputGradient) {
  const Module& module = kModules[0];
  const Shape shape = {2, module.channels, 6, 5};
  const TensorDesc x = TestDevice().FeatureMap(shape, DType::kF32);
  const Input input = MakeInput(module, shape, DType::kF32);
  OpDriver trained(module.params, x, {.name = "3a", .want_dx = false, .fuse = true}, TestDevice());
  OpDriver inferred(module.params, x, {.name = "3a", .training = false, .fuse = true}, TestDevice());
  trained.SetParams(input.params);
  inferred.SetParams(input.params);
  EXPECT_EQ(inferred.Forward(input.x), trained.Forward(input.x));
  EXPECT_EQ(inferred.op().needs().saved_bytes, 0u);
  EXPECT_EQ(trained.Backward({input.dy[0]}), Values());
}

TEST(FusedInceptionOp, OtherModulesStaySeparate) {
  InceptionParams odd = kModules[0].params, naive = odd;
  odd.c3_reduce = 12;
  naive.c2_reduce = naive.c3_reduce = naive.c4 = 0;
  for (const InceptionParams& params : {odd, naive}) {
    const auto op = MakeOp(params, TestDevice().FeatureMap({1, 192, 7, 7}, DType::kF32),
                           {.name = "module", .fuse = true}, TestDevice());
    ASSERT_TRUE(op.ok()) << op.status();
    EXPECT_EQ((*op)->needs().y.pitch, 0);
  }
}

// Their sums over ranks are for the device's stream, not for a branch.
TEST(FusedInceptionOp, NotWithStatisticsOfAllRanks) {
  const InceptionParams params = {
      .c1 = 8, .c2_reduce = 8, .c2 = 8, .c3_reduce = 8, .c3 = 8, .c4 = 8, .batch_norm = true};
  const TensorDesc x = TestDevice().FeatureMap({2, 8, 7, 7}, DType::kF32);
  const auto fused = MakeOp(params, x, {.name = "i", .fuse = true}, TestDevice());
  const auto separate =
      MakeOp(params, x, {.name = "i", .fuse = true, .sum_over_ranks = [](double*, size_t) {}}, TestDevice());
  ASSERT_TRUE(fused.ok() && separate.ok());
  EXPECT_TRUE((*fused)->needs().takes_pooled_gradients);
  EXPECT_FALSE((*separate)->needs().takes_pooled_gradients);
}

TEST(FusedInceptionOp, SlicesOfItsBuffer) {
  for (const Module& module : kModules) {
    const InceptionBuffer b(module.params);
    int64_t channel = b.r2.first;
    for (const ChannelSlice& slice : {b.r2, b.r3, b.o1, b.o2, b.o3, b.o4}) {
      EXPECT_EQ(slice.first, channel) << module.name;
      EXPECT_EQ(slice.first % 8, 0) << module.name;
      channel = slice.end();
    }
    EXPECT_GE(b.r2.first, 0);
    EXPECT_EQ(b.o1.first % 64, 0) << module.name;
    EXPECT_EQ(b.pitch % 64, 0) << module.name;
    EXPECT_GE(b.pitch, channel);
    EXPECT_LT(b.pitch, channel + 64);
    EXPECT_EQ(b.first_width(), module.params.c2_reduce + module.params.c3_reduce + module.params.c1);
  }
}

}  // namespace
}  // namespace deeper::testing
