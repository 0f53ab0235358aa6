#include "kernels/parallel.h"
#include "kernels/sgd.h"

namespace deeper {
namespace {

DEEPER_SIMD void Step(const SgdParams& params, float* w, const float* g, float* m, int64_t count) {
  // Copies, so that the compiler sees they do not change under the stores.
  const float lr = params.lr, momentum = params.momentum, decay = params.weight_decay;
  const bool nesterov = params.nesterov;
  for (int64_t i = 0; i < count; ++i) {
    const float gradient = g[i] + decay * w[i];
    const float velocity = momentum * m[i] + gradient;
    m[i] = velocity;
    w[i] -= lr * (nesterov ? gradient + momentum * velocity : velocity);
  }
}

}  // namespace

void SgdStep(Device&, const SgdParams& params, float* w, const float* g, float* m, int64_t count) {
  ParallelFor(count, 4096, [&](int64_t begin, int64_t end) {
    Step(params, w + begin, g + begin, m + begin, end - begin);
  });
}

}  // namespace deeper
