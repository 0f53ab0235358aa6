#include "kernels/ops/arrays/update.h"

#include "tests/kernels/ops/test_values.h"

namespace deeper {
namespace {

using testing::DeviceArray;
using testing::Doubles;
using testing::RandomValues;
using testing::Values;

struct State {
  Values w = RandomValues(10007, 1), g = RandomValues(10007, 2), m = RandomValues(10007, 3);
};

// The update as defined in update.h, in double.
State Reference(const SgdRule& p, float lr, State s) {
  for (size_t i = 0; i < s.w.size(); ++i) {
    const double g = double{s.g[i]} + double{p.weight_decay} * s.w[i];
    const double m = double{p.momentum} * s.m[i] + g;
    s.m[i] = static_cast<float>(m);
    s.w[i] = static_cast<float>(s.w[i] - double{lr} * (p.nesterov ? g + p.momentum * m : m));
  }
  return s;
}

// Updates the parameters in [begin, end) in place and returns the copy in bf16.
std::vector<bf16> Step(const SgdRule& params, float lr, State& s, size_t begin, size_t end,
                       const std::vector<uint8_t>& decays = {}, const std::vector<float>& lr_scales = {}) {
  Device& device = testing::TestDevice();
  const DeviceArray<float> w(s.w, device), g(s.g, device), m(s.m, device);
  const DeviceArray<StepScalars> now(std::vector<StepScalars>{{.lr = lr}}, device);
  const DeviceArray<bf16> narrow(s.w.size(), device);
  const DeviceArray<uint8_t> flags(decays, device);
  const DeviceArray<float> scales(lr_scales, device);
  Update(device, params, now.data(),
         {.w = w.data() + begin,
          .g = g.data() + begin,
          .states = {m.data() + begin},
          .narrow = narrow.data() + begin,
          .decays = decays.empty() ? nullptr : flags.data(),
          .count = static_cast<int64_t>(end - begin),
          .lr_scales = lr_scales.empty() ? nullptr : scales.data()});
  s = {w.Read(), g.Read(), m.Read()};
  return narrow.Read();
}

TEST(Sgd, MatchesTheFormula) {
  for (const SgdRule& params :
       {SgdRule{}, SgdRule{0.0f, 0.0f}, SgdRule{0.9f, 2e-4f}, SgdRule{0.9f, 2e-4f, true}}) {
    State state;
    const Values gradient = state.g;
    const State expected = Reference(params, 0.05f, state);
    const std::vector<bf16> narrow = Step(params, 0.05f, state, 0, state.w.size());
    testing::ExpectClose(state.w, testing::ToDoubles(expected.w), 1e-6, "w");
    testing::ExpectClose(state.m, testing::ToDoubles(expected.m), 1e-6, "m");
    EXPECT_EQ(state.g, gradient);
    for (size_t i = 0; i < narrow.size(); ++i) ASSERT_EQ(narrow[i].bits, ToBf16(state.w[i]).bits) << i;
  }
}

TEST(Sgd, DecaysTheGroupsItIsTold) {
  const SgdRule params{0.9f, 0.1f};
  State state;
  const State decayed = Reference(params, 0.05f, state), plain = Reference({0.9f, 0.0f}, 0.05f, state);
  std::vector<uint8_t> decays((state.w.size() + kDecayGroup - 1) / kDecayGroup);
  for (size_t i = 0; i < decays.size(); ++i) decays[i] = i % 3 == 0;
  Doubles expected;
  for (size_t i = 0; i < state.w.size(); ++i)
    expected.push_back(decays[i / kDecayGroup] != 0 ? decayed.w[i] : plain.w[i]);
  Step(params, 0.05f, state, 0, state.w.size(), decays);
  testing::ExpectClose(state.w, expected, 1e-6, "w");
}

TEST(Sgd, ScalesTheRateOfGroups) {
  const SgdRule params{0.9f, 0.1f};
  State state;
  const State before = state, once = Reference(params, 0.05f, state), twice = Reference(params, 0.1f, state);
  std::vector<float> scales((state.w.size() + kDecayGroup - 1) / kDecayGroup);
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = static_cast<float>(i % 3);
  Step(params, 0.05f, state, 0, state.w.size(), {}, scales);
  Doubles expected;
  for (size_t i = 0; i < state.w.size(); ++i) {
    const float scale = scales[i / kDecayGroup];
    expected.push_back(scale == 0 ? before.w[i] : scale == 1 ? once.w[i] : twice.w[i]);
    if (scale == 0) {
      ASSERT_EQ(state.w[i], before.w[i]) << i;
    }
  }
  testing::ExpectClose(state.w, expected, 1e-6, "w");
}

double Norm(const Values& x, size_t first, size_t count) {
  double squares = 0;
  for (size_t i = first; i < first + count; ++i) squares += double{x[i]} * double{x[i]};
  return std::sqrt(squares);
}

// LARS. The first tensor has no gradient, the last one does not decay.
TEST(Lars, MatchesTheFormula) {
  constexpr float kCoefficient = 0.02f, kDecay = 0.1f;
  const std::vector<TrustTensor> tensors = {
      {0, 37, true}, {48, 9001, true}, {9056, 16, true}, {9072, 935, false}};
  Device& device = testing::TestDevice();
  State state;
  std::fill_n(state.g.begin(), 48, 0.0f);
  const DeviceArray<float> w(state.w, device), g(state.g, device), m(state.m, device),
      ratios(tensors.size(), device);
  const DeviceArray<TrustTensor> table(tensors, device);
  std::vector<int32_t> tensor_of_group((state.w.size() + kDecayGroup - 1) / kDecayGroup);
  std::vector<uint8_t> decays(tensor_of_group.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    for (int64_t at = tensors[i].first; at < tensors[i].first + tensors[i].count; ++at) {
      tensor_of_group[static_cast<size_t>(at / kDecayGroup)] = static_cast<int32_t>(i);
      decays[static_cast<size_t>(at / kDecayGroup)] = tensors[i].decays ? 1 : 0;
    }
  }
  const DeviceArray<int32_t> groups(tensor_of_group, device);
  const DeviceArray<uint8_t> flags(decays, device);
  const auto count = static_cast<int64_t>(tensors.size());
  const DeviceArray<double> workspace(TrustWorkspaceBytes(device, count) / sizeof(double) + 1, device);
  FindTrustRatios(device, {.coefficient = kCoefficient,
                           .weight_decay = kDecay,
                           .w = w.data(),
                           .g = g.data(),
                           .elements = static_cast<int64_t>(state.w.size()),
                           .tensors = table.data(),
                           .count = count,
                           .ratios = ratios.data(),
                           .workspace = workspace.data()});
  Doubles expected = {1};
  for (const size_t i : {1, 2}) {
    const auto first = static_cast<size_t>(tensors[i].first), size = static_cast<size_t>(tensors[i].count);
    const double norm = Norm(state.w, first, size);
    expected.push_back(double{kCoefficient} * norm / (Norm(state.g, first, size) + double{kDecay} * norm));
  }
  expected.push_back(1);
  testing::ExpectClose(ratios.Read(), expected, 1e-6, "ratio");

  const DeviceArray<StepScalars> now(std::vector<StepScalars>{{.lr = 0.5f}}, device);
  Update(device, SgdRule{0.9f, kDecay}, now.data(),
         {.w = w.data(),
          .g = g.data(),
          .states = {m.data()},
          .decays = flags.data(),
          .count = static_cast<int64_t>(state.w.size()),
          .tensors = groups.data(),
          .ratios = ratios.data()});
  Doubles updated;
  for (size_t i = 0; i < state.w.size(); ++i) {
    const auto tensor = static_cast<size_t>(tensor_of_group[i / kDecayGroup]);
    const double decay = tensors[tensor].decays ? double{kDecay} : 0;
    const double gradient = expected[tensor] * (double{state.g[i]} + decay * double{state.w[i]});
    updated.push_back(state.w[i] - 0.5 * (0.9 * double{state.m[i]} + gradient));
  }
  testing::ExpectClose(w.Read(), updated, 1e-6, "w");
}

// The bits do not depend on how the parameters are divided among threads, ranks or tensors.
TEST(Sgd, DoesNotDependOnTheCut) {
  const SgdRule params{0.9f, 2e-4f, true};
  State whole, parts;
  Step(params, 0.05f, whole, 0, whole.w.size());
  const size_t cuts[] = {0, 1, 18, 35, 4099, 10007};
  for (size_t i = 0; i + 1 < std::size(cuts); ++i) Step(params, 0.05f, parts, cuts[i], cuts[i + 1]);
  EXPECT_EQ(whole.w, parts.w);
  EXPECT_EQ(whole.m, parts.m);
}

// The average of `x`, which was `average` before, after one update.
Values Averaged(float decay, int step, const Values& x, const Values& average, uint32_t skip = 0) {
  Device& device = testing::TestDevice();
  const DeviceArray<float> from(x, device), to(average, device);
  const DeviceArray<StepScalars> now(std::vector<StepScalars>{{.step = step}}, device);
  const DeviceArray<uint32_t> verdict(std::vector<uint32_t>{skip}, device);
  UpdateAverage(device, decay, now.data(), from.data(), to.data(), static_cast<int64_t>(x.size()),
                verdict.data());
  return to.Read();
}

TEST(Average, DecaysAsTensorFlowsExponentialMovingAverage) {
  const Values x = RandomValues(10007, 1), before = RandomValues(10007, 2);
  for (const auto& [step, d] : {std::pair{1, 2.0 / 11}, {90, 91.0 / 100}, {891, 0.99}, {100000, 0.99}}) {
    Doubles expected;
    for (size_t i = 0; i < x.size(); ++i) expected.push_back(d * before[i] + (1 - d) * x[i]);
    testing::ExpectClose(Averaged(0.99f, step, x, before), expected, 1e-6, "average");
  }
}

TEST(Average, IgnoresStepsThatAreSkipped) {
  const Values x = RandomValues(37, 1), before = RandomValues(37, 2);
  EXPECT_EQ(Averaged(0.9f, 5, x, before, /*skip=*/1), before);
  EXPECT_NE(Averaged(0.9f, 5, x, before, /*skip=*/0), before);
}

}  // namespace
}  // namespace deeper
