#include <atomic>
#include <bit>

#include "kernels/base/bf16.h"
#include "kernels/base/parallel.h"
#include "kernels/ops/arrays/arrays.h"

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

// Compares bits, since the compiler may optimise a float comparison away. NaN and infinity have an exponent
// of all ones.
DEEPER_SIMD bool HasNonFinite(const float* x, int64_t count) {
  constexpr uint32_t kExponent = 0x7F800000;
  uint32_t found = 0;
  for (int64_t i = 0; i < count; ++i) found |= (std::bit_cast<uint32_t>(x[i]) & kExponent) == kExponent;
  return found != 0;
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

void FindNonFiniteCpu(Device&, const float* x, int64_t count, uint32_t* found, void*) {
  *found = 0;
  ParallelFor(count, kGrain, [&](int64_t begin, int64_t end) {
    if (HasNonFinite(x + begin, end - begin)) std::atomic_ref(*found).store(1, std::memory_order_relaxed);
  });
}

size_t FindNonFiniteWorkspaceBytesCpu(Device&) {
  return 0;
}

}  // namespace deeper
