#include "kernels/ops/dropout.h"

#include "tests/kernels/ops/op_test.h"

namespace deeper {
namespace {

using ::testing::HasSubstr;
using testing::OpDriver;
using testing::RandomValues;
using testing::TestDevice;
using testing::Values;

std::vector<TensorDesc> EveryLayout(const Shape& shape, DType dtype) {
  if (TestDevice().type() == DeviceType::kCuda)
    return {{shape, dtype, shape.spatial() == 1 ? Layout::kNchw : Layout::kNhwc}};
  return {{shape, dtype}, {shape, dtype, Layout::kNhwc}, TestDevice().FeatureMap(shape, dtype)};
}

// The definition, element by element.
Values Expected(const Values& x, const Shape& s, float p, const OpOptions& options, const StepContext& step) {
  Values y(x.size());
  size_t i = 0;
  for (int64_t n = 0; n < s.n; ++n) {
    const Rng rng(step.seed, RandomStream(options.name), step.epoch, step.samples[n]);
    for (int64_t c = 0; c < s.c; ++c) {
      for (int64_t pixel = 0; pixel < s.spatial(); ++pixel, ++i) {
        const auto element = static_cast<uint32_t>(pixel * s.c + c);
        const bool keep = UnitFloat(rng.Block(element / 4).v[element % 4]) >= p;
        y[i] = keep ? x[i] * (1 / (1 - p)) : 0;
      }
    }
  }
  return y;
}

Values Rounded(Values values, DType dtype) {
  if (dtype == DType::kBf16) {
    for (float& v : values) v = ToFloat(ToBf16(v));
  }
  return values;
}

TEST(Dropout, SameMaskInEveryLayout) {
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    for (const Shape& shape :
         {Shape{3, 10, 7, 5}, Shape{1, 24, 3, 3}, Shape{3, 1030, 1, 1}, Shape{1, 3, 1, 1}}) {
      for (const TensorDesc& desc : EveryLayout(shape, dtype)) {
        const OpOptions options{.name = "drop"};
        OpDriver driver(DropoutParams{0.4f}, desc, options, TestDevice(), 2);
        const Values x = RandomValues(shape.elements(), 1, dtype),
                     dy = RandomValues(shape.elements(), 2, dtype);
        EXPECT_EQ(driver.Forward(x), Rounded(Expected(x, shape, 0.4f, options, driver.step()), dtype));
        Values sum = dy;
        for (float& v : sum) v *= 2;
        EXPECT_EQ(driver.Backward({dy, dy}),
                  Rounded(Expected(sum, shape, 0.4f, options, driver.step()), dtype));
      }
    }
  }
}

TEST(Dropout, DropsTheStatedShareAndKeepsTheMean) {
  const Shape shape{16, 4096};
  const Values ones(static_cast<size_t>(shape.elements()), 1.0f);
  const double count = static_cast<double>(shape.elements());
  for (const float p : {0.0f, 0.4f, 0.7f}) {
    OpDriver driver(DropoutParams{p}, {shape}, {.name = "drop"}, TestDevice());
    double sum = 0, zeros = 0;
    for (const float y : driver.Forward(ones)) {
      sum += y;
      zeros += y == 0;
    }
    EXPECT_NEAR(zeros / count, p, 5 * std::sqrt(p * (1 - p) / count) + 1e-9);
    EXPECT_NEAR(sum / count, 1, 5 * std::sqrt(p / (1 - p) / count) + 1e-6);
  }
}

TEST(Dropout, EachSampleEpochSeedAndOpDrawsAnew) {
  const Shape shape{2, 256};
  const Values ones(512, 1.0f);
  OpDriver driver(DropoutParams{}, {shape}, {.name = "drop"}, TestDevice());
  const Values first = driver.Forward(ones);
  EXPECT_FALSE(std::equal(first.begin(), first.begin() + 256, first.begin() + 256));
  const auto [seed, epoch] = std::pair(driver.step().seed, driver.step().epoch);
  const std::vector<uint64_t> samples = driver.samples();
  driver.SetStep(seed, epoch + 1, samples);
  EXPECT_NE(driver.Forward(ones), first);
  driver.SetStep(seed + 1, epoch, samples);
  EXPECT_NE(driver.Forward(ones), first);
  driver.SetStep(seed, epoch, samples);
  EXPECT_EQ(driver.Forward(ones), first);
  OpDriver other(DropoutParams{}, {shape}, {.name = "other"}, TestDevice());
  EXPECT_NE(other.Forward(ones), first);

  // A mask belongs to the sample, not to its row.
  driver.SetStep(seed, epoch, {samples[1], samples[0]});
  Values expected(first.begin() + 256, first.end());
  expected.insert(expected.end(), first.begin(), first.begin() + 256);
  EXPECT_EQ(driver.Forward(ones), expected);
}

TEST(Dropout, IsTheIdentityOutsideTraining) {
  for (const TensorDesc& desc : EveryLayout({2, 10, 3, 3}, DType::kF32)) {
    OpDriver driver(DropoutParams{0.9f}, desc, {.name = "drop", .training = false}, TestDevice());
    const Values x = RandomValues(desc.shape.elements(), 1);
    EXPECT_EQ(driver.Forward(x), x);
  }
}

TEST(Dropout, Errors) {
  for (const float p : {-0.1f, 1.0f, std::nanf("")}) {
    EXPECT_THAT(std::string(Infer(DropoutParams{p}, {1, 16}).status().message()),
                HasSubstr("p must be in [0, 1)"))
        << p;
  }
}

}  // namespace
}  // namespace deeper
