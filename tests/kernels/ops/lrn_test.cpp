#include "kernels/ops/lrn.h"

#include "tests/kernels/ops/op_test.h"

namespace deeper {
namespace {

using testing::Doubles;
using ::testing::HasSubstr;

testing::Reference ReferenceOf(const LrnParams& p, const Shape& x) {
  return [p, x](const Doubles& in, const std::vector<Doubles>&) {
    Doubles out(in.size());
    for (int64_t i = 0; i < x.elements(); ++i) {
      const int64_t c = i / x.spatial() % x.c;
      double sum = 0;
      for (int64_t j = std::max<int64_t>(c - p.size / 2, 0); j <= std::min(c + p.size / 2, x.c - 1); ++j) {
        const double v = in[static_cast<size_t>(i + (j - c) * x.spatial())];
        sum += v * v;
      }
      out[static_cast<size_t>(i)] =
          in[static_cast<size_t>(i)] * std::pow(p.k + p.alpha / static_cast<double>(p.size) * sum, -p.beta);
    }
    return out;
  };
}

// Alpha is large, so that the normalisation has a visible effect.
TEST(Lrn, MatchesTheReference) {
  for (const DType dtype : testing::TestTypes()) {
    for (const LrnParams& params :
         {LrnParams{5, 2.0f, 0.75f, 1}, LrnParams{3, 1.0f, 0.75f, 2}, LrnParams{5, 1, 0.5f, 1}}) {
      for (const Shape& x : {Shape{3, 24, 7, 7}, Shape{1, 64, 3, 5}, Shape{1, 16, 4, 4}, Shape{3, 10, 5, 3},
                             Shape{1, 3, 1, 1}}) {
        testing::CheckOp(params, x, dtype, ReferenceOf(params, x), {.dy_parts = x.n == 3 ? 2 : 1});
      }
    }
  }
}

TEST(Lrn, Errors) {
  EXPECT_THAT(std::string(Infer(LrnParams{.size = 4}, {1, 16, 3, 3}).status().message()),
              HasSubstr("but is 4"));
  EXPECT_THAT(std::string(Infer(LrnParams{.size = -1}, {1, 16, 3, 3}).status().message()),
              HasSubstr("but is -1"));
  EXPECT_EQ(MakeOp(LrnParams{}, {{1, 16, 3, 3}}, {}, testing::TestDevice()).status().code(),
            absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace deeper
