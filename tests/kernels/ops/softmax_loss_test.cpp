#include "kernels/ops/softmax_loss.h"

#include <omp.h>

#include <limits>
#include <numeric>

#include "tests/kernels/ops/test_values.h"

namespace deeper {
namespace {

using testing::DeviceArray;
using testing::DeviceTensor;
using testing::Doubles;
using testing::RandomValues;
using testing::TestDevice;
using testing::Values;

struct Outcome {
  HeadResult result;
  Values dlogits;
};

// Targets in addition to the labels.
struct Softening {
  std::vector<int32_t> partner_labels;  // empty: none
  std::vector<float> partner_weights;
  float smoothing = 0;
};

// `scale` is divided between the head's weight and the step's loss_scale.
Outcome LossOf(const Values& logits, int64_t classes, const std::vector<int32_t>& labels, float scale = 1,
               DType dtype = DType::kF32, bool gradient = true, const Softening& softening = {}) {
  Device& device = TestDevice();
  const TensorDesc desc{{static_cast<int64_t>(labels.size()), classes}, dtype};
  DeviceTensor x(desc, device), dx(desc, device);
  x.Write(logits);
  dx.Poison();
  const DeviceArray<int32_t> device_labels(labels, device);
  const DeviceArray<StepContext> step({{.loss_scale = scale / 4}}, device);
  const DeviceArray<HeadResult> result({{.rows = -1}}, device);
  const DeviceArray<std::byte> workspace(
      std::vector<std::byte>(SoftmaxLossWorkspaceBytes(device, desc), std::byte{0xFF}), device);
  const bool mixed = !softening.partner_labels.empty();
  const DeviceArray<int32_t> partner_labels(softening.partner_labels, device);
  const DeviceArray<float> partner_weights(softening.partner_weights, device);
  SoftmaxLoss(device, {.logits = {x.data(), desc},
                       .labels = device_labels.data(),
                       .partner_labels = mixed ? partner_labels.data() : nullptr,
                       .partner_weights = mixed ? partner_weights.data() : nullptr,
                       .smoothing = softening.smoothing,
                       .weight = 4,
                       .step = step.data(),
                       .dlogits = gradient ? dx.data() : nullptr,
                       .result = result.data(),
                       .workspace = workspace.data()});
  device.Synchronize();
  return {result.Read()[0], gradient ? dx.Read() : Values{}};
}

// The definition. Ranks the classes by sorting.
struct Expected {
  HeadResult result;
  Doubles dlogits;
};
Expected Reference(const Values& logits, int64_t classes, const std::vector<int32_t>& labels, double scale,
                   const Softening& softening = {}) {
  Expected e;
  e.dlogits.resize(logits.size());
  for (size_t n = 0; n < labels.size(); ++n) {
    if (labels[n] < 0) continue;
    const float* row = &logits[n * static_cast<size_t>(classes)];
    const double max = *std::max_element(row, row + classes);
    double sum = 0;
    for (int64_t c = 0; c < classes; ++c) sum += std::exp(row[c] - max);
    Doubles target(static_cast<size_t>(classes), softening.smoothing / static_cast<double>(classes));
    const double partner = softening.partner_labels.empty() ? 0 : softening.partner_weights[n];
    target[static_cast<size_t>(labels[n])] += (1.0 - softening.smoothing) * (1 - partner);
    if (partner > 0)
      target[static_cast<size_t>(softening.partner_labels[n])] += (1.0 - softening.smoothing) * partner;
    for (int64_t c = 0; c < classes; ++c) {
      const double log_softmax = row[c] - max - std::log(sum), wanted = target[static_cast<size_t>(c)];
      e.dlogits[n * static_cast<size_t>(classes) + static_cast<size_t>(c)] =
          scale * (std::exp(log_softmax) - wanted);
      e.result.loss_sum -= wanted * log_softmax;
    }
    std::vector<int32_t> order(static_cast<size_t>(classes));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return row[a] > row[b]; });
    const auto rank = std::find(order.begin(), order.end(), labels[n]) - order.begin();
    ++e.result.rows;
    e.result.top1 += rank < 1;
    e.result.top5 += rank < 5;
  }
  return e;
}

void ExpectSame(const HeadResult& actual, const HeadResult& expected) {
  EXPECT_NEAR(actual.loss_sum, expected.loss_sum, 1e-9 * (1 + std::abs(expected.loss_sum)));
  EXPECT_EQ(actual.rows, expected.rows);
  EXPECT_EQ(actual.top1, expected.top1);
  EXPECT_EQ(actual.top5, expected.top5);
}

TEST(SoftmaxLoss, MatchesTheReference) {
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    for (const int64_t classes : {1, 3, 10, 1000}) {
      Values logits = RandomValues(37 * classes, 1, dtype);
      for (float& x : logits) x *= 8;
      std::vector<int32_t> labels(37);
      for (size_t n = 0; n < labels.size(); ++n) {
        labels[n] = n % 5 == 4 ? -1 : static_cast<int32_t>(n * 131 % static_cast<size_t>(classes));
      }
      const Outcome actual = LossOf(logits, classes, labels, 0.25f, dtype);
      const Expected expected = Reference(logits, classes, labels, 0.25);
      ExpectSame(actual.result, expected.result);
      testing::ExpectClose(actual.dlogits, expected.dlogits, dtype == DType::kF32 ? 1e-6 : 4e-3, "dlogits");
    }
  }
}

// Rows of all kinds: mixed with another class, with the same class, unmixed, and padding.
Softening SoftTargets(size_t rows, int64_t classes, float smoothing) {
  Softening softening = {{}, {}, smoothing};
  for (size_t n = 0; n < rows; ++n) {
    softening.partner_labels.push_back(static_cast<int32_t>(n * 37 % static_cast<size_t>(classes)));
    softening.partner_weights.push_back(n % 3 == 0 ? 0 : 0.13f * static_cast<float>(n % 8));
  }
  return softening;
}

TEST(SoftmaxLoss, MixedAndSmoothedMatchTheReference) {
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    for (const int64_t classes : {1, 3, 1000}) {
      for (const float smoothing : {0.0f, 0.1f}) {
        Values logits = RandomValues(37 * classes, 1, dtype);
        for (float& x : logits) x *= 8;
        std::vector<int32_t> labels(37);
        for (size_t n = 0; n < labels.size(); ++n)
          labels[n] = n % 5 == 4 ? -1 : static_cast<int32_t>(n * 131 % static_cast<size_t>(classes));
        Softening softening = SoftTargets(labels.size(), classes, smoothing);
        for (int mixed = 2; mixed-- > 0; softening.partner_labels.clear()) {
          const Outcome actual = LossOf(logits, classes, labels, 0.25f, dtype, true, softening);
          const Expected expected = Reference(logits, classes, labels, 0.25, softening);
          EXPECT_NEAR(actual.result.loss_sum, expected.result.loss_sum, 1e-6 * expected.result.loss_sum);
          EXPECT_EQ(actual.result.top1, expected.result.top1);
          testing::ExpectClose(actual.dlogits, expected.dlogits, dtype == DType::kF32 ? 1e-6 : 4e-3,
                               "dlogits");
        }
      }
    }
  }
}

TEST(SoftmaxLoss, GradientIsTheLossesSlope) {
  constexpr int64_t kClasses = 7;
  constexpr float kStep = 1e-2f;
  const std::vector<int32_t> labels = {3, 0, -1, 6, 2};
  const Softening softening = SoftTargets(labels.size(), kClasses, 0.1f);
  Values logits = RandomValues(static_cast<int64_t>(labels.size()) * kClasses, 4);
  const Values gradient = LossOf(logits, kClasses, labels, 1, DType::kF32, true, softening).dlogits;
  for (size_t i = 0; i < logits.size(); ++i) {
    const auto loss_at = [&](float x) {
      Values moved = logits;
      moved[i] = x;
      return LossOf(moved, kClasses, labels, 1, DType::kF32, false, softening).result.loss_sum;
    };
    const float above = logits[i] + kStep, below = logits[i] - kStep;
    EXPECT_NEAR((loss_at(above) - loss_at(below)) / (double{above} - below), gradient[i], 1e-4) << i;
  }
}

// Logits of few distinct values: the lowest class wins a tie.
TEST(SoftmaxLoss, TiesGoToTheLowestClass) {
  Values logits = RandomValues(64 * 12, 5);
  for (float& x : logits) x = std::round(x);
  std::vector<int32_t> labels(64);
  for (size_t n = 0; n < labels.size(); ++n) labels[n] = static_cast<int32_t>(n % 12);
  const HeadResult expected = Reference(logits, 12, labels, 1).result;
  ASSERT_GT(expected.top5, expected.top1);
  ExpectSame(LossOf(logits, 12, labels).result, expected);

  const Values equal(7, 0.5f);
  EXPECT_EQ(LossOf(equal, 7, {0}).result.top1, 1);
  EXPECT_EQ(LossOf(equal, 7, {1}).result.top1, 0);
  EXPECT_EQ(LossOf(equal, 7, {4}).result.top5, 1);
  EXPECT_EQ(LossOf(equal, 7, {5}).result.top5, 0);
}

TEST(SoftmaxLoss, LargeLogitsStayFinite) {
  const Outcome out = LossOf({3e38f, -3e38f, 0, 1e4f, 1e4f, -1e4f}, 3, {0, 2});
  EXPECT_NEAR(out.result.loss_sum, 2e4, 1);
  for (const float d : out.dlogits) EXPECT_TRUE(std::isfinite(d));
  EXPECT_TRUE(std::isfinite(LossOf({3e38f, -3e38f}, 2, {1}).result.loss_sum));
}

TEST(SoftmaxLoss, PaddingRowsCountForNothing) {
  const Outcome out = LossOf(Values(6, std::numeric_limits<float>::quiet_NaN()), 3, {-1, -1});
  ExpectSame(out.result, {});
  EXPECT_EQ(out.dlogits, Values(6, 0.0f));
}

TEST(SoftmaxLoss, NanShowsInTheLossAndIsNotAccurate) {
  const HeadResult result = LossOf(Values(10, std::numeric_limits<float>::quiet_NaN()), 10, {0}).result;
  EXPECT_TRUE(std::isnan(result.loss_sum));
  EXPECT_EQ(result.top1, 0);
  EXPECT_EQ(result.top5, 0);
}

TEST(SoftmaxLoss, GradientIsOptional) {
  const Values logits = RandomValues(4 * 10, 1);
  const std::vector<int32_t> labels = {1, 2, 3, -1};
  ExpectSame(LossOf(logits, 10, labels, 1, DType::kF32, /*gradient=*/false).result,
             Reference(logits, 10, labels, 1).result);
}

TEST(SoftmaxLoss, SameBitsForAnyNumberOfThreads) {
  TestDevice();
  const int threads = omp_get_max_threads();
  const Values logits = RandomValues(33 * 100, 9);
  std::vector<int32_t> labels(33);
  std::iota(labels.begin(), labels.end(), 0);
  omp_set_num_threads(1);
  const Outcome one = LossOf(logits, 100, labels);
  omp_set_num_threads(5);
  const Outcome five = LossOf(logits, 100, labels);
  omp_set_num_threads(threads);
  EXPECT_EQ(one.result.loss_sum, five.result.loss_sum);
  EXPECT_EQ(one.dlogits, five.dlogits);
}

TEST(SoftmaxLossDeathTest, LabelOutOfRange) {
  if (TestDevice().type() != DeviceType::kCpu)
    GTEST_SKIP() << "only the CPU checks labels; other devices rely on the data set";
  EXPECT_DEATH(LossOf(Values(3, 0.0f), 3, {3}), "label 3 of 3 classes");
}

}  // namespace
}  // namespace deeper
