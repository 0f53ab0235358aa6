#include <algorithm>

#include "kernels/base/parallel.h"
#include "kernels/ops/arrays/arrays.h"
#include "kernels/ops/arrays/sgd.h"

namespace deeper {
namespace {

DEEPER_SIMD void Step(const SgdParams& params, float lr, const SgdArrays& a, int64_t begin, int64_t end) {
  // Copies, so that the compiler sees they do not change under the stores.
  const float momentum = params.momentum;
  const bool nesterov = params.nesterov;
  float *const w = a.w, *const m = a.m;
  const float* const g = a.g;
  for (int64_t group = begin; group < end; group += kDecayGroup) {
    const bool decays = a.decays == nullptr || a.decays[group / kDecayGroup] != 0;
    const float decay = decays ? params.weight_decay : 0.0f;
    for (int64_t i = group; i < std::min(end, group + kDecayGroup); ++i) {
      const float gradient = g[i] + decay * w[i];
      const float velocity = momentum * m[i] + gradient;
      m[i] = velocity;
      w[i] -= lr * (nesterov ? gradient + momentum * velocity : velocity);
    }
  }
}

}  // namespace

void SgdStepCpu(Device& device, const SgdParams& params, const float* lr, const SgdArrays& a) {
  ParallelFor(a.count, 256 * kDecayGroup,
              [&](int64_t begin, int64_t end) { Step(params, *lr, a, begin, end); });
  if (a.narrow != nullptr) NarrowCpu(device, a.w, a.narrow, a.count);
}

}  // namespace deeper
