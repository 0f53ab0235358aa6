#include "kernels/base/bf16.h"
#include "kernels/base/parallel.h"
#include "kernels/ops/arrays/flat.h"

namespace deeper {
namespace {

constexpr int64_t kGrain = 4096;

DEEPER_SIMD void Add(const float* x, float* into, int64_t count) {
  for (int64_t i = 0; i < count; ++i) into[i] += x[i];
}

DEEPER_SIMD void Multiply(float factor, float* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] *= factor;
}

DEEPER_SIMD void Round(const float* from, bf16* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = ToBf16(from[i]);
}

}  // namespace

void AccumulateCpu(Device&, const float* x, float* into, int64_t count) {
  ParallelFor(count, kGrain, [&](int64_t begin, int64_t end) { Add(x + begin, into + begin, end - begin); });
}

void ScaleCpu(Device&, float factor, float* x, int64_t count) {
  ParallelFor(count, kGrain, [&](int64_t begin, int64_t end) { Multiply(factor, x + begin, end - begin); });
}

void NarrowCpu(Device&, const float* x, void* to, int64_t count) {
  ParallelFor(count, kGrain, [&](int64_t begin, int64_t end) {
    Round(x + begin, static_cast<bf16*>(to) + begin, end - begin);
  });
}

}  // namespace deeper
