#include "comm/bf16_sum.h"

#include <cmath>

#include "kernels/parallel.h"

namespace deeper {
namespace {

// An overflow must not come back in every later sum.
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

DEEPER_SIMD void SumParts(std::span<const bf16* const> parts, float* residual, bf16* sum, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    float exact = 0;
    for (const bf16* part : parts) exact += ToFloat(part[i]);
    sum[i] = ToBf16(exact);
    residual[i] += Finite(exact - ToFloat(sum[i]));
  }
}

DEEPER_SIMD void Widen(const bf16* wire, float* data, size_t count) {
  for (size_t i = 0; i < count; ++i) data[i] = ToFloat(wire[i]);
}

}  // namespace deeper
