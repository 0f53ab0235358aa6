#include "comm/bf16_sum.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/parallel.h"

namespace deeper {
namespace {

// An overflow must not carry over to later sums.
inline float Finite(float x) {
  return std::isfinite(x) ? x : 0.0f;
}

}  // namespace

DEEPER_SIMD void RoundWithFeedback(const float* data, float* residual, bf16* wire, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const float value = data[i] + residual[i];
    wire[i] = ToBf16(value);
    residual[i] = Finite(value - ToFloat(wire[i]));
  }
}

// In blocks, so that the inner loops vectorize.
DEEPER_SIMD void SumParts(std::span<const bf16* const> parts, float* residual, bf16* sum, size_t count) {
  constexpr size_t kBlock = 512;
  float exact[kBlock];
  for (size_t first = 0; first < count; first += kBlock) {
    const size_t n = std::min(kBlock, count - first);
    std::fill(exact, exact + n, 0.0f);
    for (const bf16* part : parts) {
      for (size_t i = 0; i < n; ++i) exact[i] += ToFloat(part[first + i]);
    }
    for (size_t i = 0; i < n; ++i) {
      const bf16 rounded = ToBf16(exact[i]);
      residual[first + i] += Finite(exact[i] - ToFloat(rounded));
      sum[first + i] = rounded;
    }
  }
}

DEEPER_SIMD void Widen(const bf16* wire, float* data, size_t count) {
  for (size_t i = 0; i < count; ++i) data[i] = ToFloat(wire[i]);
}

}  // namespace deeper
