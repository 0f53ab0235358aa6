#include "kernels/ops/conv2d/conv2d.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <barrier>
#include <functional>
#include <thread>

#include "tests/kernels/ops/op_test.h"
#include "tests/kernels/ops/reference.h"

namespace deeper::testing {
namespace {

using ::testing::HasSubstr;

Reference ConvReference(const Conv2dParams& p, const Shape& x_shape, bool training = true) {
  return [=](const Doubles& x, const std::vector<Doubles>& params) {
    size_t next = 0;
    return NaiveConv2d({x_shape, x}, p, params, next, training).values;
  };
}

void Check(const Conv2dParams& p, const Shape& x, DType dtype, CheckOptions options = {}) {
  options.samples = 12;  // CheckAllGradients checks every element
  CheckOp(p, x, dtype, ConvReference(p, x, options.op.training), options);
}

// Compares every element of every gradient with the definition, without ReLU, for shapes on which finite
// differences would take long.
void CheckAllGradients(Conv2dParams p, const Shape& x_shape, DType dtype) {
  SCOPED_TRACE(x_shape.ToString() + " by " + std::to_string(p.kernel) + " " + NameOf(dtype));
  p.relu = false;
  OpDriver driver(p, TestDevice().FeatureMap(x_shape, dtype), {.name = "conv"}, TestDevice());
  const Shape y = driver.shape().y;
  const Values x = RandomValues(x_shape.elements(), 1, dtype), dy = RandomValues(y.elements(), 2, dtype);
  const Values weight = RandomValues(driver.shape().params[0].elements(), 3, DType::kBf16);
  driver.SetParams({weight, Values(static_cast<size_t>(y.c))});

  const NaiveTensor x64{x_shape, ToDoubles(x)};
  const NaiveGradients expected = NaiveConvolutionBackward(x64, p, ToDoubles(weight), {y, ToDoubles(dy)});
  const double tolerance = dtype == DType::kF32 ? 1e-4 : 1e-2;
  ExpectClose(driver.Forward(x), NaiveConvolution(x64, p, ToDoubles(weight), {}).values, tolerance, "y");
  ExpectClose(driver.Backward({dy}), expected.x, tolerance, "dx");
  ExpectClose(driver.Grad(0), expected.weight, tolerance, "weight gradient");
  ExpectClose(driver.Grad(1), expected.bias, tolerance, "bias gradient");
}

class Conv2dTest : public ::testing::TestWithParam<DType> {};

TEST_P(Conv2dTest, PointwiseOnWholeBlocks) {
  Check({.out_channels = 48}, {3, 32, 5, 5}, GetParam());
}
TEST_P(Conv2dTest, PointwiseOnPartialBlocks) {
  Check({.out_channels = 10}, {2, 24, 5, 6}, GetParam());
}
TEST_P(Conv2dTest, Same3x3) {
  Check({.out_channels = 32, .kernel = 3, .pad = 1}, {1, 16, 8, 8}, GetParam());
}
TEST_P(Conv2dTest, Same3x3OnOneOddImage) {
  Check({.out_channels = 10, .kernel = 3, .pad = 1}, {1, 24, 7, 7}, GetParam());
}
TEST_P(Conv2dTest, Valid3x3) {
  Check({.out_channels = 16, .kernel = 3}, {1, 16, 9, 8}, GetParam());
}
TEST_P(Conv2dTest, Same5x5) {
  Check({.out_channels = 32, .kernel = 5, .pad = 2}, {1, 24, 6, 7}, GetParam());
}
TEST_P(Conv2dTest, Strided) {
  Check({.out_channels = 16, .kernel = 3, .stride = 2, .pad = 1}, {2, 16, 8, 9}, GetParam());
}
TEST_P(Conv2dTest, KernelThatCoversTheImage) {
  Check({.out_channels = 20, .kernel = 4}, {3, 16, 4, 4}, GetParam());
}
TEST_P(Conv2dTest, WindowThatReachesPastTheImageOnBothSides) {
  Check({.out_channels = 32, .kernel = 5, .pad = 2}, {2, 16, 1, 1}, GetParam());
  Check({.out_channels = 10, .kernel = 5, .pad = 2}, {3, 24, 2, 1}, GetParam());
  Check({.out_channels = 16, .kernel = 3, .pad = 1, .batch_norm = true}, {4, 16, 1, 1}, GetParam());
  CheckAllGradients({.out_channels = 32, .kernel = 5, .pad = 2}, {3, 24, 1, 2}, GetParam());
  CheckAllGradients({.out_channels = 24, .kernel = 3, .pad = 1}, {3, 16, 1, 1}, GetParam());
}
TEST_P(Conv2dTest, WithoutRelu) {
  Check({.out_channels = 16, .kernel = 3, .pad = 1, .relu = false}, {2, 16, 7, 7}, GetParam());
}

TEST_P(Conv2dTest, GradientInParts) {
  Check({.out_channels = 16}, {2, 16, 5, 5}, GetParam(), {.dy_parts = 3});
  Check({.out_channels = 16, .relu = false}, {2, 16, 5, 5}, GetParam(), {.dy_parts = 4});
}

TEST_P(Conv2dTest, Images) {
  const OpOptions first = {.name = "conv1", .want_dx = false};
  const Conv2dParams stem = {.out_channels = 64, .kernel = 7, .stride = 2, .pad = 3};
  Check(stem, {2, 3, 18, 16}, GetParam(), {.op = first, .plain_x = true});
  Check({.out_channels = 16, .kernel = 5, .pad = 2}, {2, 1, 9, 9}, GetParam(),
        {.op = first, .plain_x = true});
  Check({.out_channels = 24, .kernel = 3, .pad = 1}, {1, 4, 6, 6}, GetParam(), {.plain_x = true});
  Check({.out_channels = 24, .kernel = 5, .pad = 2}, {2, 3, 2, 2}, GetParam(),
        {.op = first, .plain_x = true});
}

// In the same kernel, on CUDA.
TEST_P(Conv2dTest, MaxPool) {
  Device& device = TestDevice();
  const Shape shape = {2, 3, 33, 30};
  const TensorDesc images = device.Images(shape, GetParam());
  const OpOptions options = {.name = "conv1", .want_dx = false, .fuse = true};
  const Conv2dParams conv = {.out_channels = 64, .kernel = 7, .stride = 2, .pad = 3};
  Conv2dParams pooled = conv;
  pooled.max_pool = true;
  if (device.type() == DeviceType::kCpu || GetParam() == DType::kF32) {
    EXPECT_TRUE(absl::IsUnimplemented(MakeOp(pooled, images, options, device).status()));
    return;
  }
  const Values x = RandomValues(shape.elements(), 1, GetParam());
  for (const int parts : {1, 2}) {
    OpDriver separate(conv, images, options, device), fused(pooled, images, options, device, parts);
    OpDriver pool(PoolParams{.kernel = 3, .stride = 2, .pad = 1},
                  device.FeatureMap(separate.shape().y, GetParam()), {}, device, parts);
    std::vector<Values> params, dy;
    for (const ParamSpec& spec : fused.shape().params)
      params.push_back(RandomValues(spec.elements(), 10 + params.size(), DType::kBf16));
    for (uint64_t part = 0; part < static_cast<uint64_t>(parts); ++part)
      dy.push_back(RandomValues(fused.shape().y.elements(), 20 + part, GetParam()));
    separate.SetParams(params);
    fused.SetParams(params);
    ExpectClose(fused.Forward(x), ToDoubles(pool.Forward(separate.Forward(x))), 1e-2, "y");
    EXPECT_TRUE(fused.Backward(dy).empty());
    separate.Backward({pool.Backward(dy)});
    ExpectClose(fused.Grad(0), ToDoubles(separate.Grad(0)), 1e-2, "weight gradient");
    ExpectClose(fused.Grad(1), ToDoubles(separate.Grad(1)), 1e-2, "bias gradient");
  }
  OpOptions inference = options;
  inference.training = false;
  EXPECT_EQ(MakeOp(pooled, images, inference, device).value()->needs().saved_bytes, 0u);
  for (const auto& spoil : std::vector<std::function<void(Conv2dParams&)>>{
           [](Conv2dParams& p) { p.relu = false; }, [](Conv2dParams& p) { p.batch_norm = true; },
           [](Conv2dParams& p) { p.kernel = 1; }}) {
    Conv2dParams other = pooled;
    spoil(other);
    EXPECT_TRUE(absl::IsUnimplemented(MakeOp(other, images, options, device).status()));
  }
}

TEST_P(Conv2dTest, BatchNorm) {
  Check({.out_channels = 32, .kernel = 3, .pad = 1, .batch_norm = true}, {3, 16, 5, 5}, GetParam(),
        {.dy_parts = 2});
  Check({.out_channels = 10, .batch_norm = true}, {3, 24, 5, 5}, GetParam());
  Check({.out_channels = 16, .relu = false, .batch_norm = true}, {2, 16, 6, 5}, GetParam());
}

TEST_P(Conv2dTest, Evaluation) {
  const CheckOptions evaluation = {.op = {.name = "conv", .training = false}};
  Check({.out_channels = 24, .kernel = 3, .pad = 1}, {2, 16, 6, 6}, GetParam(), evaluation);
  Check({.out_channels = 10, .batch_norm = true}, {2, 16, 6, 6}, GetParam(), evaluation);
}

TEST_P(Conv2dTest, EveryGradientElement) {
  CheckAllGradients({.out_channels = 64}, {3, 48, 14, 14}, GetParam());
  CheckAllGradients({.out_channels = 64, .kernel = 3, .pad = 1}, {2, 32, 28, 28}, GetParam());
  CheckAllGradients({.out_channels = 48, .kernel = 3, .pad = 1}, {3, 24, 7, 7}, GetParam());
  CheckAllGradients({.out_channels = 32, .kernel = 5, .pad = 2}, {2, 16, 14, 14}, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Types, Conv2dTest, ::testing::ValuesIn(TestTypes()),
                         [](const auto& param_info) { return NameOf(param_info.param); });

TEST(Conv2d, BatchNormTracksRunningStatistics) {
  const Conv2dParams p = {.out_channels = 10, .batch_norm = true, .norm = {.momentum = 0.25f}};
  const Shape shape = {2, 16, 3, 4};
  OpDriver driver(p, TestDevice().FeatureMap(shape, DType::kF32), {.name = "conv"}, TestDevice());
  const Values x = RandomValues(shape.elements(), 1), weight = RandomValues(160, 2);
  driver.SetParams({weight, Values(10, 1), Values(10, 0), Values(10, 0.5f), Values(10, 2)});
  driver.Forward(x);
  const NaiveStatistics s =
      NaiveBatchStatistics(NaiveConvolution({shape, ToDoubles(x)}, p, ToDoubles(weight), {}));
  Doubles mean, variance;
  for (size_t c = 0; c < 10; ++c) {
    mean.push_back(0.75 * 0.5 + 0.25 * s.mean[c]);
    variance.push_back(0.75 * 2 + 0.25 * s.variance[c] * 24 / 23);
  }
  ExpectClose(driver.Param(3), mean, 1e-5, "running_mean");
  ExpectClose(driver.Param(4), variance, 1e-5, "running_var");
}

// Adds the values of `ranks` threads in rank order.
class Meeting {
 public:
  explicit Meeting(size_t ranks) : handed_in_(ranks), barrier_(static_cast<std::ptrdiff_t>(ranks)) {}
  SumOverRanks Join(size_t rank) {
    return [this, rank](double* values, size_t count) {
      handed_in_[rank].assign(values, values + count);
      barrier_.arrive_and_wait();
      std::fill_n(values, count, 0.0);
      for (const Doubles& theirs : handed_in_) {
        ASSERT_EQ(theirs.size(), count) << "ranks exchange different counts";
        std::transform(values, values + count, theirs.begin(), values, std::plus<double>());
      }
      barrier_.arrive_and_wait();
    };
  }

 private:
  std::vector<Doubles> handed_in_;  // [rank]
  std::barrier<> barrier_;
};

// The result of one rank for its rows, of which the first `rows` count.
struct NormOutcome {
  Values y, dx, dweight, dscale, dshift, running_mean, running_var;
};

NormOutcome RunNorm(const Conv2dParams& p, Shape shape, DType type, const Values& x, const Values& dy,
                    int64_t rows, const SumOverRanks& sum) {
  OpDriver driver(p, TestDevice().FeatureMap(shape, type), {.name = "conv", .sum_over_ranks = sum},
                  TestDevice());
  driver.SetStep(1, 0, std::vector<uint64_t>(static_cast<size_t>(shape.n)), rows);
  const auto channels = static_cast<size_t>(p.out_channels);
  driver.SetParams({RandomValues(p.out_channels * shape.c, 2), RandomValues(p.out_channels, 3),
                    RandomValues(p.out_channels, 4), Values(channels, 0.5f), Values(channels, 2)});
  NormOutcome outcome;
  outcome.y = driver.Forward(x);
  outcome.dx = driver.Backward({dy});
  outcome.dweight = driver.Grad(0), outcome.dscale = driver.Grad(1), outcome.dshift = driver.Grad(2);
  outcome.running_mean = driver.Param(3), outcome.running_var = driver.Param(4);
  return outcome;
}

// Compares three ranks with the same rows on one rank. One of the three has one padding row, another has only
// padding rows. The sums are in the memory of the host, so the test's name excludes it on GPUs.
class SyncBatchNormTest : public ::testing::TestWithParam<DType> {};

TEST_P(SyncBatchNormTest, SameAsOnOneRank) {
  const int64_t rows[] = {3, 2, 0}, capacity = 3;
  for (const Conv2dParams& p : {Conv2dParams{.out_channels = 32, .batch_norm = true},
                                Conv2dParams{.out_channels = 10, .relu = false, .batch_norm = true}}) {
    const Shape all = {5, 16, 4, 3}, each = {capacity, 16, 4, 3};
    const auto x_row = static_cast<size_t>(all.elements() / all.n);
    const auto y_row = static_cast<size_t>(p.out_channels * all.spatial());
    const Values x = RandomValues(all.elements(), 5, GetParam());
    const Values dy = RandomValues(static_cast<int64_t>(5 * y_row), 6, GetParam());
    const NormOutcome expected = RunNorm(p, all, GetParam(), x, dy, 5, nullptr);

    Meeting meeting(3);
    NormOutcome outcomes[3];
    std::vector<std::jthread> ranks;
    for (size_t rank = 0, first = 0; rank < 3; first += static_cast<size_t>(rows[rank++])) {
      ranks.emplace_back([&, rank, first] {
        const auto own = static_cast<size_t>(rows[rank]);
        Values own_x(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(capacity * x_row)),
            own_dy(capacity * y_row);
        std::copy_n(x.begin() + static_cast<std::ptrdiff_t>(first * x_row), own * x_row, own_x.begin());
        std::copy_n(dy.begin() + static_cast<std::ptrdiff_t>(first * y_row), own * y_row, own_dy.begin());
        outcomes[rank] = RunNorm(p, each, GetParam(), own_x, own_dy, rows[rank], meeting.Join(rank));
      });
    }
    ranks.clear();

    NormOutcome together;
    for (size_t rank = 0; rank < 3; ++rank) {
      const NormOutcome& own = outcomes[rank];
      const auto append = [&](Values& to, const Values& from, size_t row) {
        const auto counted = static_cast<std::ptrdiff_t>(static_cast<size_t>(rows[rank]) * row);
        to.insert(to.end(), from.begin(), from.begin() + counted);
      };
      append(together.y, own.y, y_row);
      append(together.dx, own.dx, x_row);
      EXPECT_TRUE(
          std::all_of(own.dx.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(rows[rank]) * x_row),
                      own.dx.end(), [](float value) { return value == 0; }))
          << "padding has a gradient";
      const auto add = [](Values& to, const Values& from) {
        to.resize(from.size());
        std::transform(to.begin(), to.end(), from.begin(), to.begin(), std::plus<float>());
      };
      add(together.dweight, own.dweight);
      add(together.dscale, own.dscale);
      add(together.dshift, own.dshift);
      EXPECT_EQ(own.running_mean, outcomes[0].running_mean);
      EXPECT_EQ(own.running_var, outcomes[0].running_var);
    }
    const double tolerance = GetParam() == DType::kF32 ? 1e-5 : 0.04;
    ExpectClose(together.y, ToDoubles(expected.y), tolerance, "y");
    ExpectClose(together.dx, ToDoubles(expected.dx), tolerance, "dx");
    ExpectClose(together.dweight, ToDoubles(expected.dweight), tolerance, "weight gradient");
    ExpectClose(together.dscale, ToDoubles(expected.dscale), tolerance, "scale gradient");
    ExpectClose(together.dshift, ToDoubles(expected.dshift), tolerance, "shift gradient");
    ExpectClose(outcomes[0].running_mean, ToDoubles(expected.running_mean), tolerance, "running_mean");
    ExpectClose(outcomes[0].running_var, ToDoubles(expected.running_var), tolerance, "running_var");
  }
}

INSTANTIATE_TEST_SUITE_P(Types, SyncBatchNormTest, ::testing::ValuesIn(TestTypes()),
                         [](const auto& param_info) { return NameOf(param_info.param); });

TEST(Conv2d, TrustsAMaskedGradient) {
  const Conv2dParams p = {.out_channels = 16, .dy_is_masked = true};
  OpDriver driver(p, TestDevice().FeatureMap({1, 16, 4, 4}, DType::kF32), {.name = "conv"}, TestDevice());
  driver.SetParams({RandomValues(256, 2), Values(16, -100)});  // all outputs are zero
  driver.Forward(RandomValues(256, 1));
  EXPECT_FALSE(driver.op().needs().backward_reads_y);
  driver.Backward({Values(256, 1)});
  EXPECT_EQ(driver.Grad(1), Values(16, 16));
}

TEST(Conv2d, DescribesItself) {
  const OpShape shape =
      Infer(Conv2dParams{.out_channels = 64, .kernel = 7, .stride = 2, .pad = 3}, {2, 3, 224, 224}).value();
  EXPECT_EQ(shape.y, (Shape{2, 64, 112, 112}));
  EXPECT_EQ(shape.macs, int64_t{2} * 64 * 112 * 112 * 3 * 49);
  ASSERT_EQ(shape.params.size(), 2u);
  EXPECT_EQ(shape.params[0].name, "conv.weight");
  EXPECT_EQ(shape.params[0].shape, (std::vector<int64_t>{64, 3, 7, 7}));
  EXPECT_EQ(shape.params[1].name, "conv.bias");
}

TEST(Conv2d, SaysWhatDoesNotFit) {
  const auto message = [](const Conv2dParams& p, const Shape& x) {
    return std::string(Infer(p, x).status().message());
  };
  EXPECT_THAT(message({.out_channels = 8, .kernel = 7}, {1, 3, 4, 4}),
              HasSubstr("7x7 kernel with pad 0 does not fit"));
  EXPECT_THAT(message({.out_channels = 0}, {1, 3, 4, 4}), HasSubstr("out_channels 0"));
  EXPECT_THAT(message({.out_channels = 8, .stride = 0}, {1, 3, 4, 4}), HasSubstr("stride 0"));

  const auto one_value =
      MakeOp(Conv2dParams{.out_channels = 8, .batch_norm = true},
             TestDevice().FeatureMap({1, 16, 1, 1}, DType::kF32), {.name = "c"}, TestDevice());
  EXPECT_THAT(std::string(one_value.status().message()), HasSubstr("one value per channel"));
  const auto strange = MakeOp(Conv2dParams{.out_channels = 8},
                              {{1, 16, 4, 4}, DType::kF32, Layout::kBlocked, 4}, {.name = "c"}, TestDevice());
  EXPECT_EQ(strange.status().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace deeper::testing
