#include "kernels/sgd.h"

#include "tests/kernels/op_test.h"

namespace deeper {
namespace {

using testing::Doubles;
using testing::RandomValues;
using testing::Values;

struct State {
  Values w = RandomValues(10007, 1), g = RandomValues(10007, 2), m = RandomValues(10007, 3);
};

// The update as sgd.h states it, in double.
State Reference(const SgdParams& p, State s) {
  for (size_t i = 0; i < s.w.size(); ++i) {
    const double g = double{s.g[i]} + double{p.weight_decay} * s.w[i];
    const double m = double{p.momentum} * s.m[i] + g;
    s.m[i] = static_cast<float>(m);
    s.w[i] = static_cast<float>(s.w[i] - p.lr * (p.nesterov ? g + p.momentum * m : m));
  }
  return s;
}

void Step(const SgdParams& params, State& s, size_t begin, size_t end) {
  SgdStep(testing::TestDevice(), params, &s.w[begin], &s.g[begin], &s.m[begin],
          static_cast<int64_t>(end - begin));
}

TEST(Sgd, MatchesTheFormula) {
  for (const SgdParams& params : {SgdParams{}, SgdParams{0.1f, 0.0f, 0.0f}, SgdParams{0.05f, 0.9f, 2e-4f},
                                  SgdParams{0.05f, 0.9f, 2e-4f, true}}) {
    State state;
    const Values gradient = state.g;
    State expected = Reference(params, state);
    Step(params, state, 0, state.w.size());
    testing::ExpectClose(state.w, testing::ToDoubles(expected.w), 1e-6, "w");
    testing::ExpectClose(state.m, testing::ToDoubles(expected.m), 1e-6, "m");
    EXPECT_EQ(state.g, gradient);
  }
}

// The same bits however the parameters are cut: over threads, ranks or tensors.
TEST(Sgd, DoesNotDependOnTheCut) {
  const SgdParams params{0.05f, 0.9f, 2e-4f, true};
  State whole, parts;
  Step(params, whole, 0, whole.w.size());
  const size_t cuts[] = {0, 1, 18, 35, 4099, 10007};
  for (size_t i = 0; i + 1 < std::size(cuts); ++i) Step(params, parts, cuts[i], cuts[i + 1]);
  EXPECT_EQ(whole.w, parts.w);
  EXPECT_EQ(whole.m, parts.m);
}

}  // namespace
}  // namespace deeper
