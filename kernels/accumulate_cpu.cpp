#include "kernels/accumulate.h"
#include "kernels/parallel.h"

namespace deeper {
namespace {

DEEPER_SIMD void Add(const float* x, float* into, int64_t count) {
  for (int64_t i = 0; i < count; ++i) into[i] += x[i];
}

}  // namespace

void Accumulate(Device&, const float* x, float* into, int64_t count) {
  ParallelFor(count, 4096, [&](int64_t begin, int64_t end) { Add(x + begin, into + begin, end - begin); });
}

}  // namespace deeper
