#include "kernels/ops/linear.h"

#include "tests/kernels/ops/op_test.h"

namespace deeper {
namespace {

using testing::Doubles;
using ::testing::HasSubstr;

testing::Reference ReferenceOf(const LinearParams& p, const Shape& x) {
  return [p, x](const Doubles& in, const std::vector<Doubles>& params) {
    Doubles out;
    for (int64_t n = 0; n < x.n; ++n) {
      for (int64_t k = 0; k < p.out_features; ++k) {
        double sum = params[1][static_cast<size_t>(k)];
        for (int64_t c = 0; c < x.c; ++c)
          sum += in[static_cast<size_t>(n * x.c + c)] * params[0][static_cast<size_t>(k * x.c + c)];
        out.push_back(p.relu ? std::max(sum, 0.0) : sum);
      }
    }
    return out;
  };
}

TEST(Linear, MatchesTheReference) {
  struct Case {
    Shape x;
    int64_t outputs;
    int dy_parts;
  };
  for (const DType dtype : testing::TestTypes()) {
    for (const Case& c :
         {Case{{1, 10}, 3, 1}, Case{{3, 24}, 10, 4}, Case{{17, 64}, 40, 2}, Case{{3, 1}, 1, 1}}) {
      for (const bool relu : {false, true}) {
        const LinearParams params{c.outputs, relu};
        testing::CheckOp(params, c.x, dtype, ReferenceOf(params, c.x),
                         {.dy_parts = c.dy_parts, .plain_x = true});
      }
    }
  }
}

TEST(Linear, WorksWithoutTrainingAndWithoutDx) {
  for (const DType dtype : testing::TestTypes()) {
    for (const bool training : {false, true}) {
      const LinearParams params{7, true};
      const Shape x{3, 20};
      testing::CheckOp(params, x, dtype, ReferenceOf(params, x),
                       {.op = {.name = "fc", .training = training, .want_dx = false}, .plain_x = true});
    }
  }
}

TEST(Linear, Describes) {
  const OpShape shape = *Infer(LinearParams{1000}, {8, 1024});
  EXPECT_EQ(shape.y, (Shape{8, 1000}));
  EXPECT_EQ(shape.macs, 8 * 1024 * 1000);
  ASSERT_EQ(shape.params.size(), 2u);
  EXPECT_EQ(shape.params[0].name, "weight");
  EXPECT_EQ(shape.params[0].shape, (std::vector<int64_t>{1000, 1024}));
  EXPECT_EQ(shape.params[1].name, "bias");
  EXPECT_EQ(shape.params[1].shape, (std::vector<int64_t>{1000}));
}

TEST(Linear, Errors) {
  const auto message = [](const LinearParams& p, const Shape& x) {
    return std::string(Infer(p, x).status().message());
  };
  EXPECT_THAT(message({10}, {1, 16, 2, 1}), HasSubstr("[1, 16, 2, 1], not a vector: put a flatten"));
  EXPECT_THAT(message({0}, {1, 16}), HasSubstr("out_features must be positive, but is 0"));
  Device& device = testing::TestDevice();
  EXPECT_EQ(MakeOp(LinearParams{10}, device.FeatureMap({1, 16}, DType::kF32), {}, device).status().code(),
            absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace deeper
