#include <algorithm>
#include <type_traits>

#include "kernels/base/parallel.h"
#include "kernels/cpu/profile.h"
#include "kernels/ops/arrays/arrays.h"
#include "kernels/ops/arrays/update.h"

namespace deeper {
namespace {

// Copies the rule and the scalars, so that the compiler can assume that the stores do not change them.
template <bool kTrust, class Rule>
DEEPER_SIMD void UpdateRange(const Rule rule, const StepScalars now, const UpdateArrays& a, int64_t begin,
                             int64_t end) {
  float* const w = a.w;
  const float* const g = a.g;
  float* states[Rule::kStates];
  std::copy_n(a.states, Rule::kStates, states);
  for (int64_t group = begin; group < end; group += kDecayGroup) {
    const bool decays = a.decays == nullptr || a.decays[group / kDecayGroup] != 0;
    float ratio = 1;
    if constexpr (kTrust) ratio = a.ratios[a.tensors[group / kDecayGroup]];
    const float decay = decays ? ratio * rule.weight_decay : 0.0f;
    StepScalars scaled = now;
    if (a.lr_scales != nullptr) scaled.lr *= a.lr_scales[group / kDecayGroup];
    for (int64_t i = group; i < std::min(end, group + kDecayGroup); ++i) {
      float own[Rule::kStates];
      for (int s = 0; s < Rule::kStates; ++s) own[s] = states[s][i];
      rule(scaled, decay, w[i], kTrust ? ratio * g[i] : g[i], own);
      for (int s = 0; s < Rule::kStates; ++s) states[s][i] = own[s];
    }
  }
}

DEEPER_SIMD double SumOfSquares(const float* x, int64_t count) {
  constexpr int64_t kSums = 16;  // so that the compiler can use vectors
  double sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= count; i += kSums) {
    for (int64_t j = 0; j < kSums; ++j) sums[j] += double{x[i + j]} * double{x[i + j]};
  }
  double sum = 0;
  for (; i < count; ++i) sum += double{x[i]} * double{x[i]};
  for (const double part : sums) sum += part;
  return sum;
}

DEEPER_SIMD void MoveTowards(const float* x, float share, float* average, int64_t count) {
  for (int64_t i = 0; i < count; ++i) average[i] += share * (x[i] - average[i]);
}

}  // namespace

void UpdateCpu(Device& device, const UpdateRule& any, const StepScalars* now, const UpdateArrays& a) {
  if (a.skip != nullptr && *a.skip != 0) return;
  std::visit(
      [&](const auto& rule) {
        using Rule = std::remove_cvref_t<decltype(rule)>;
        constexpr auto kFloats = 3 + 2 * Rule::kStates;  // read and written per parameter
        const auto update = a.ratios == nullptr ? UpdateRange<false, Rule> : UpdateRange<true, Rule>;
        Timed({Rule::kName, a.count * kFloats * static_cast<int64_t>(sizeof(float))}, [&] {
          ParallelFor(a.count, 256 * kDecayGroup,
                      [&](int64_t begin, int64_t end) { update(rule, *now, a, begin, end); });
        });
      },
      any);
  if (a.narrow != nullptr) NarrowCpu(device, a.w, a.narrow, a.count);
}

void FindTrustRatiosCpu(Device&, const TrustArguments& a) {
  Timed({"trust ratios", 2 * a.elements * static_cast<int64_t>(sizeof(float))}, [&] {
    ParallelFor(a.count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto& [first, count, decays] = a.tensors[i];
        a.ratios[i] = TrustRatio(a, i, SumOfSquares(a.w + first, count), SumOfSquares(a.g + first, count));
      }
    });
  });
}

size_t TrustWorkspaceBytesCpu(Device&, int64_t) {
  return 0;
}

void UpdateAverageCpu(Device&, float decay, const StepScalars* now, const float* x, float* average,
                      int64_t count, const uint32_t* skip) {
  if (skip != nullptr && *skip != 0) return;
  const float share = ShareOfNewest(decay, *now);
  Timed({"average", 3 * count * static_cast<int64_t>(sizeof(float))}, [&] {
    ParallelFor(count, 4096, [&](int64_t begin, int64_t end) {
      MoveTowards(x + begin, share, average + begin, end - begin);
    });
  });
}

}  // namespace deeper
