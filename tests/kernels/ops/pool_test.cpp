#include "kernels/ops/pool.h"

#include <limits>

#include "tests/kernels/ops/op_test.h"

namespace deeper {
namespace {

using testing::CheckOp;
using testing::Doubles;
using ::testing::HasSubstr;
using testing::OpDriver;
using testing::RandomValues;
using testing::TestDevice;
using testing::Values;

constexpr auto kMax = PoolParams::Kind::kMax;
constexpr auto kAverage = PoolParams::Kind::kAverage;

// For each element of y, the positions in x of its window's pixels, in scan order.
std::vector<std::vector<size_t>> WindowsOf(const PoolParams& p, const Shape& x) {
  const Shape y = Infer(p, x)->y;
  std::vector<std::vector<size_t>> windows(static_cast<size_t>(y.elements()));
  for (int64_t i = 0; i < y.elements(); ++i) {
    const int64_t plane = i / y.spatial(), top = i / y.w % y.h * p.stride - p.pad,
                  left = i % y.w * p.stride - p.pad;
    for (int64_t h = std::max<int64_t>(top, 0); h < std::min(top + p.kernel, x.h); ++h) {
      for (int64_t w = std::max<int64_t>(left, 0); w < std::min(left + p.kernel, x.w); ++w) {
        windows[static_cast<size_t>(i)].push_back(static_cast<size_t>(plane * x.spatial() + h * x.w + w));
      }
    }
  }
  return windows;
}

testing::Reference ReferenceOf(const PoolParams& p, const Shape& x) {
  return [kind = p.kind, windows = WindowsOf(p, x)](const Doubles& in, const std::vector<Doubles>&) {
    Doubles out;
    for (const std::vector<size_t>& window : windows) {
      double max = -std::numeric_limits<double>::infinity(), sum = 0;
      for (const size_t at : window) {
        max = std::max(max, in[at]);
        sum += in[at];
      }
      out.push_back(kind == kMax ? max : sum / static_cast<double>(window.size()));
    }
    return out;
  };
}

struct Case {
  PoolParams params;
  Shape x;
};

const Case kCases[] = {
    {{kMax, 3, 2}, {3, 24, 13, 13}},
    {{kMax, 3, 2, 1}, {1, 10, 7, 7}},
    {{kMax, 3, 1, 1}, {3, 32, 7, 7}},
    {{kMax, 3, 1, 1}, {1, 3, 1, 1}},
    {{kMax, 3, 2, 0, true}, {1, 24, 14, 14}},
    {{kMax, 3, 2, 1, true}, {3, 10, 6, 9}},
    {{kMax, 2, 2, 0, true}, {1, 16, 7, 7}},
    {{kMax, 2, 3, 1, true}, {1, 16, 6, 6}},
    {{kMax, 1, 2, 0, true}, {1, 16, 4, 5}},
    {{kAverage, 5, 3}, {3, 24, 14, 14}},
    {{kAverage, 3, 2, 1}, {1, 10, 8, 7}},
    {{kAverage, 2, 1, 1}, {3, 24, 7, 6}},
    {{kAverage, 2, 2}, {1, 10, 8, 7}},
    {{kAverage, 3, 2, 0, true}, {3, 24, 16, 16}},
    {{kAverage, 3, 2, 1, true}, {1, 24, 6, 6}},
    {{kAverage, 5, 3, 0, false, true}, {3, 10, 4, 4}},
    {{kAverage, 5, 3, 0, false, true}, {1, 24, 2, 3}},
    {{kAverage, 5, 3, 0, false, true}, {3, 16, 1, 1}},
};

TEST(Pool, MatchesTheReference) {
  for (const DType dtype : testing::TestTypes()) {
    for (const Case& c : kCases) {
      SCOPED_TRACE(std::to_string(c.params.kernel) + "/" + std::to_string(c.params.stride));
      CheckOp(c.params, c.x, dtype, ReferenceOf(c.params, c.x), {.dy_parts = c.x.n == 3 ? 3 : 1});
    }
  }
}

// BlurPool of trainer/models/googlenet.cpp: (1 2 1) x (1 2 1) / 16 in steps of 2, with repeated borders.
TEST(AveragePool, TwoOfThemAreABlur) {
  for (const int64_t side : {1, 2, 7, 8}) {
    const Shape shape{2, 16, side, side};
    OpDriver first(PoolParams{kAverage, 2, 1, 1}, TestDevice().FeatureMap(shape, DType::kF32), {},
                   TestDevice());
    OpDriver second(PoolParams{kAverage, 2, 2}, TestDevice().FeatureMap(first.shape().y, DType::kF32), {},
                    TestDevice());
    const Values x = RandomValues(shape.elements(), 1);
    const Values y = second.Forward(first.Forward(x));
    const int64_t outputs = second.shape().y.h;
    ASSERT_EQ(outputs, (side + 1) / 2);
    for (size_t i = 0; i < y.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      const int64_t plane = at / (outputs * outputs), row = at / outputs % outputs, column = at % outputs;
      double expected = 0;
      for (int64_t dh = -1; dh <= 1; ++dh) {
        for (int64_t dw = -1; dw <= 1; ++dw) {
          const int64_t h = std::clamp<int64_t>(2 * row + dh, 0, side - 1);
          const int64_t w = std::clamp<int64_t>(2 * column + dw, 0, side - 1);
          expected += (dh == 0 ? 2 : 1) * (dw == 0 ? 2 : 1) / 16.0 *
                      double{x[static_cast<size_t>((plane * side + h) * side + w)]};
        }
      }
      ASSERT_NEAR(y[i], expected, 1e-5) << side << ": " << i;
    }
  }
}

TEST(Pool, WorksWithoutTraining) {
  const PoolParams params{kMax, 3, 2, 1};
  const Shape x{1, 24, 7, 7};
  CheckOp(params, x, DType::kF32, ReferenceOf(params, x), {.op = {.name = "op", .training = false}});
}

// Small integers: nearly every window has ties, and all sums are exact.
TEST(MaxPool, FirstMaximumTakesTheGradient) {
  for (const DType dtype : testing::TestTypes()) {
    for (const Case& c : kCases) {
      if (c.params.kind != kMax) continue;
      SCOPED_TRACE(c.x.ToString() + " " + NameOf(dtype));
      OpDriver driver(c.params, TestDevice().FeatureMap(c.x, dtype), {}, TestDevice());
      Values x = RandomValues(c.x.elements(), 1), dy = RandomValues(driver.shape().y.elements(), 2);
      for (float& v : x) v = std::round(v);
      for (float& v : dy) v = std::round(8 * v);
      Values dx(x.size());
      size_t i = 0;
      for (const std::vector<size_t>& window : WindowsOf(c.params, c.x)) {
        // max_element returns the first of equal elements.
        const auto first =
            std::max_element(window.begin(), window.end(), [&](size_t a, size_t b) { return x[a] < x[b]; });
        dx[*first] += dy[i++];
      }
      driver.Forward(x);
      EXPECT_EQ(driver.Backward({dy}), dx);
    }
  }
}

// Applying the mask of the ReLU before x in the pool gives the same result as applying it to dx.
TEST(MaxPool, MasksDx) {
  for (const DType dtype : testing::TestTypes()) {
    PoolParams params{kMax, 3, 2, 1};
    const TensorDesc desc = TestDevice().FeatureMap({3, 24, 9, 9}, dtype);
    OpDriver plain(params, desc, {}, TestDevice(), 2);
    params.mask_dx = true;
    OpDriver masked(params, desc, {}, TestDevice(), 2);
    Values x = RandomValues(desc.shape.elements(), 1, dtype);
    for (float& v : x) v = std::max(v - 0.7f, 0.0f);  // mostly zeros, so that there are windows of zeros
    if (dtype == DType::kBf16) {
      for (float& v : x) v = ToFloat(ToBf16(v));
    }
    const int64_t outputs = plain.shape().y.elements();
    const std::vector<Values> dy = {RandomValues(outputs, 2, dtype), RandomValues(outputs, 3, dtype)};
    EXPECT_EQ(plain.Forward(x), masked.Forward(x));
    Values expected = plain.Backward(dy);
    ASSERT_TRUE(std::any_of(expected.begin(), expected.end(), [&, i = size_t{0}](float g) mutable {
      return x[i++] == 0 && g != 0;
    })) << "nothing to mask";
    for (size_t i = 0; i < x.size(); ++i) expected[i] = x[i] > 0 ? expected[i] : 0;
    EXPECT_EQ(masked.Backward(dy), expected);
  }
}

// Sizes of PyTorch's max_pool2d and avg_pool2d.
TEST(Pool, ShapeRule) {
  const auto side = [](const PoolParams& p, int64_t size) { return Infer(p, {1, 1, size, size})->y.h; };
  EXPECT_EQ(side({kMax, 3, 2, 1}, 112), 56);
  EXPECT_EQ(side({kMax, 3, 2, 0, true}, 112), 56);
  EXPECT_EQ(side({kMax, 3, 2, 0, false}, 112), 55);
  EXPECT_EQ(side({kMax, 2, 2, 0, true}, 7), 4);
  EXPECT_EQ(side({kMax, 2, 2, 1, true}, 4), 3);  // a fourth window would start in the right padding
  EXPECT_EQ(side({kMax, 1, 2, 0, true}, 4), 2);
  EXPECT_EQ(side({kAverage, 5, 3}, 14), 4);
  EXPECT_EQ(side({kAverage, 5, 3, 0, false, true}, 4), 1);
  EXPECT_EQ(side({kAverage, 5, 3, 0, false, true}, 8), 2);
  EXPECT_EQ(Infer(PoolParams{kMax, 3, 2, 1}, {2, 5, 8, 9})->y, (Shape{2, 5, 4, 5}));
}

TEST(Pool, Errors) {
  const auto message = [](const PoolParams& p, const Shape& x) {
    return std::string(Infer(p, x).status().message());
  };
  const Shape x{1, 16, 4, 4};
  EXPECT_THAT(message({kAverage, 5, 3}, x),
              HasSubstr("kernel of 5 with pad 0 does not fit the image of [1, 16, 4, 4]"));
  EXPECT_THAT(message({kMax, 5, 1, 2}, {1, 16, 4, 0}), HasSubstr("does not fit"));
  EXPECT_THAT(message({kMax, 3, 2, 2}, x), HasSubstr("pad 2"));
  EXPECT_THAT(message({kMax, 0, 2, 0}, x), HasSubstr("kernel 0"));
  EXPECT_THAT(message({kMax, 3, 0, 0}, x), HasSubstr("stride 0"));
  EXPECT_THAT(message({.kind = kAverage, .mask_dx = true}, x), HasSubstr("only max pooling"));
  for (const OpParams& params : {OpParams(PoolParams{}), OpParams(GlobalAvgPoolParams{})}) {
    const auto op = MakeOp(params, {{1, 16, 4, 4}}, {}, TestDevice());
    EXPECT_EQ(op.status().code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(std::string(op.status().message()), HasSubstr("fp32 [1, 16, 4, 4]"));
  }
}

TEST(GlobalAvgPool, MatchesTheReference) {
  for (const DType dtype : testing::TestTypes()) {
    for (const Shape& x : {Shape{3, 24, 7, 7}, Shape{1, 10, 5, 3}, Shape{3, 32, 1, 1}}) {
      const auto reference = [&](const Doubles& in, const std::vector<Doubles>&) {
        Doubles out(static_cast<size_t>(x.n * x.c));
        for (size_t i = 0; i < in.size(); ++i) {
          out[i / static_cast<size_t>(x.spatial())] += in[i] / static_cast<double>(x.spatial());
        }
        return out;
      };
      CheckOp(GlobalAvgPoolParams{}, x, dtype, reference, {.dy_parts = static_cast<int>(x.n)});
    }
  }
  EXPECT_EQ(Infer(GlobalAvgPoolParams{}, {2, 5, 8, 9})->y, (Shape{2, 5, 1, 1}));
}

}  // namespace
}  // namespace deeper
