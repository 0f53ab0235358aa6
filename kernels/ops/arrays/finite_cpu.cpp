#include <atomic>
#include <bit>

#include "kernels/base/parallel.h"
#include "kernels/ops/arrays/finite.h"

namespace deeper {
namespace {

constexpr int64_t kGrain = 4096;

// In bits, since a comparison of floats may be optimised away: NaN and infinity have all ones as exponent.
DEEPER_SIMD bool HasNonFinite(const float* x, int64_t count) {
  constexpr uint32_t kExponent = 0x7F800000;
  uint32_t found = 0;
  for (int64_t i = 0; i < count; ++i) found |= (std::bit_cast<uint32_t>(x[i]) & kExponent) == kExponent;
  return found != 0;
}

}  // namespace

void FindNonFiniteCpu(Device&, const float* x, int64_t count, uint32_t* found, void*) {
  *found = 0;
  ParallelFor(count, kGrain, [&](int64_t begin, int64_t end) {
    if (HasNonFinite(x + begin, end - begin)) std::atomic_ref(*found).store(1, std::memory_order_relaxed);
  });
}

size_t FindNonFiniteWorkspaceBytesCpu() {
  return 0;
}

}  // namespace deeper
