#include <algorithm>
#include <cstdint>

#include "kernels/cuda/base/cuda_for_each.h"
#include "kernels/ops/arrays/sgd.h"

namespace deeper {
namespace {

template <int N>
struct Sgd {
  static_assert(kDecayGroup % N == 0);
  SgdParams params;
  const float* lr;  // in the device's memory
  SgdArrays a;

  DEEPER_HD void operator()(int64_t i) const {
    const int64_t at = i * N;
    const bool decays = a.decays == nullptr || a.decays[at / kDecayGroup] != 0;
    const float decay = decays ? params.weight_decay : 0.0f;
    if (at + N <= a.count) {
      Update<N>(at, decay);
    } else {
      for (int64_t last = at; last < a.count; ++last) Update<1>(last, decay);
    }
  }

  template <int Width>
  DEEPER_HD void Update(int64_t at, float decay) const {
    auto w = LoadPack<float, Width>(a.w + at), m = LoadPack<float, Width>(a.m + at);
    const auto g = LoadPack<float, Width>(a.g + at);
    for (int j = 0; j < Width; ++j) {
      const float gradient = g.v[j] + decay * w.v[j];
      m.v[j] = params.momentum * m.v[j] + gradient;
      w.v[j] -= *lr * (params.nesterov ? gradient + params.momentum * m.v[j] : m.v[j]);
    }
    StorePack(a.w + at, w);
    StorePack(a.m + at, m);
    if (a.narrow == nullptr) return;
    Pack<bf16, Width> narrow;
    for (int j = 0; j < Width; ++j) narrow.v[j] = ToBf16(w.v[j]);
    StorePack(static_cast<bf16*>(a.narrow) + at, narrow);
  }
};

// A shard of the parameters may begin anywhere.
bool Aligned(const SgdArrays& a) {
  const auto at = [](const void* p) { return reinterpret_cast<uintptr_t>(p); };
  return (at(a.w) | at(a.g) | at(a.m)) % 16 == 0 && at(a.narrow) % 8 == 0;
}

}  // namespace

void SgdStepCuda(Device& device, const SgdParams& params, const float* lr, const SgdArrays& a) {
  const Launch launch = {"sgd", (a.narrow == nullptr ? 20 : 22) * a.count};
  if (Aligned(a)) {
    ForEach(AsCuda(device), launch, (a.count + 3) / 4, Sgd<4>{params, lr, a});
  } else {
    ForEach(AsCuda(device), launch, a.count, Sgd<1>{params, lr, a});
  }
}

}  // namespace deeper
