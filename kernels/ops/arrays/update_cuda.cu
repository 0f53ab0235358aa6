#include <algorithm>
#include <cstdint>

#include "kernels/cuda/base/cuda_for_each.h"
#include "kernels/ops/arrays/update.h"

namespace deeper {
namespace {

template <class Rule, int N>
struct UpdatePack {
  static_assert(kDecayGroup % N == 0);
  Rule rule;
  const StepScalars* now;  // in device memory
  UpdateArrays a;

  int64_t Iterations() const { return 0; }  // only the last pack has a rest
  DEEPER_HD void operator()(int64_t i) const {
    if (a.skip != nullptr && *a.skip != 0) return;
    const int64_t at = i * N;
    const bool decays = a.decays == nullptr || a.decays[at / kDecayGroup] != 0;
    const float ratio = a.ratios == nullptr ? 1.0f : a.ratios[a.tensors[at / kDecayGroup]];
    const float decay = decays ? ratio * rule.weight_decay : 0.0f;
    StepScalars scaled = *now;
    if (a.lr_scales != nullptr) scaled.lr *= a.lr_scales[at / kDecayGroup];
    if (at + N <= a.count) {
      Apply<N>(at, scaled, decay, ratio);
    } else {
      DEEPER_NO_UNROLL
      for (int64_t last = at; last < a.count; ++last) Apply<1>(last, scaled, decay, ratio);
    }
  }

  template <int Width>
  DEEPER_HD void Apply(int64_t at, const StepScalars& scaled, float decay, float ratio) const {
    auto w = LoadPack<float, Width>(a.w + at);
    auto g = LoadPack<float, Width>(a.g + at);
    if (a.ratios != nullptr) {
      for (float& gradient : g.v) gradient *= ratio;
    }
    Pack<float, Width> states[Rule::kStates];
    for (int s = 0; s < Rule::kStates; ++s) states[s] = LoadPack<float, Width>(a.states[s] + at);
    for (int j = 0; j < Width; ++j) {
      float own[Rule::kStates];
      for (int s = 0; s < Rule::kStates; ++s) own[s] = states[s].v[j];
      rule(scaled, decay, w.v[j], g.v[j], own);
      for (int s = 0; s < Rule::kStates; ++s) states[s].v[j] = own[s];
    }
    StorePack(a.w + at, w);
    for (int s = 0; s < Rule::kStates; ++s) StorePack(a.states[s] + at, states[s]);
    if (a.narrow != nullptr) StorePack(static_cast<bf16*>(a.narrow) + at, Rounded<bf16>(w.v));
  }
};

// A lane takes every kLanes-th element of its tensor. Neighbouring threads read neighbouring elements.
constexpr int64_t kLanes = 1 << 10;

struct Squares {
  double w = 0, g = 0;
};

struct SumSquaresInLane {
  TrustArguments a;
  DEEPER_HD void operator()(int64_t i) const {
    const int64_t tensor = i / kLanes, lane = i % kLanes;
    const TrustTensor& of = a.tensors[tensor];
    Squares sum;
    for (int64_t at = of.first + lane; at < of.first + of.count; at += kLanes) {
      sum.w += double{a.w[at]} * double{a.w[at]};
      sum.g += double{a.g[at]} * double{a.g[at]};
    }
    static_cast<Squares*>(a.workspace)[i] = sum;
  }
};

struct JoinSquares {
  TrustArguments a;
  DEEPER_HD void operator()(int64_t tensor) const {
    Squares sum;
    for (int64_t i = tensor * kLanes; i < (tensor + 1) * kLanes; ++i) {
      sum.w += static_cast<const Squares*>(a.workspace)[i].w;
      sum.g += static_cast<const Squares*>(a.workspace)[i].g;
    }
    a.ratios[tensor] = TrustRatio(a, tensor, sum.w, sum.g);
  }
};

struct MoveTowards {
  float decay;
  const StepScalars* now;  // in device memory
  const float* x;
  float* average;
  const uint32_t* skip;
  DEEPER_HD void operator()(int64_t i) const {
    if (skip != nullptr && *skip != 0) return;
    average[i] += ShareOfNewest(decay, *now) * (x[i] - average[i]);
  }
};

// A shard of the parameters may start at any address.
bool Aligned(const UpdateArrays& a) {
  const auto at = [](const void* p) { return reinterpret_cast<uintptr_t>(p); };
  uintptr_t all = at(a.w) | at(a.g);
  for (const float* state : a.states) all |= at(state);
  return all % 16 == 0 && at(a.narrow) % 8 == 0;
}

template <class Rule>
void Run(CudaDevice& device, const Rule& rule, const StepScalars* now, const UpdateArrays& a) {
  const int64_t bytes = 12 + 8 * Rule::kStates + (a.narrow == nullptr ? 0 : 2);
  const Launch launch = {Rule::kName, bytes * a.count};
  if (Aligned(a)) {
    ForEach(device, launch, (a.count + 3) / 4, UpdatePack<Rule, 4>{rule, now, a});
  } else {
    ForEach(device, launch, a.count, UpdatePack<Rule, 1>{rule, now, a});
  }
}

}  // namespace

void UpdateCuda(Device& device, const UpdateRule& any, const StepScalars* now, const UpdateArrays& a) {
  std::visit([&](const auto& rule) { Run(AsCuda(device), rule, now, a); }, any);
}

size_t TrustWorkspaceBytesCuda(Device&, int64_t tensors) {
  return static_cast<size_t>(tensors * kLanes) * sizeof(Squares);
}

void FindTrustRatiosCuda(Device& device, const TrustArguments& a) {
  const auto sums = static_cast<int64_t>(TrustWorkspaceBytesCuda(device, a.count));
  ForEach(AsCuda(device), {"sums of squares", 8 * a.elements + sums}, a.count * kLanes, SumSquaresInLane{a});
  ForEach(AsCuda(device), {"trust ratios", sums}, a.count, JoinSquares{a});
}

void UpdateAverageCuda(Device& device, float decay, const StepScalars* now, const float* x, float* average,
                       int64_t count, const uint32_t* skip) {
  ForEach(AsCuda(device), {"average", 12 * count}, count, MoveTowards{decay, now, x, average, skip});
}

}  // namespace deeper
