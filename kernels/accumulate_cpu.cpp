#include "kernels/accumulate.h"
#include "kernels/parallel.h"

namespace deeper {
namespace {

DEEPER_SIMD void Add(const float* x, float* into, int64_t count) {
  for (int64_t i = 0; i < count; ++i) into[i] += x[i];
}

DEEPER_SIMD void Multiply(float factor, float* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] *= factor;
}

}  // namespace

void Accumulate(Device&, const float* x, float* into, int64_t count) {
  ParallelFor(count, 4096, [&](int64_t begin, int64_t end) { Add(x + begin, into + begin, end - begin); });
}

void Scale(Device&, float factor, float* x, int64_t count) {
  ParallelFor(count, 4096, [&](int64_t begin, int64_t end) { Multiply(factor, x + begin, end - begin); });
}

}  // namespace deeper
