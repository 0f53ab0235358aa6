// Vectors of 16 floats with AVX-512, loaded from and stored to fp32 or bf16, for passes that GCC vectorises
// badly. Call functions marked DEEPER_AVX512 only if Supported(). Their results have the bits of the plain
// code: bf16 rounds as ToBf16 does.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>

#include <cstdint>

#include "kernels/base/bf16.h"

// GCC 12 warns about its own header.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#define DEEPER_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl")))
#define DEEPER_AVX512_INLINE inline __attribute__((target("avx512f,avx512bw,avx512vl"), always_inline))

namespace deeper::avx512 {

constexpr int64_t kLanes = 16;

inline bool Supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl");
}

// The first `count` lanes, or all.
DEEPER_AVX512_INLINE __mmask16 First(int64_t count) {
  return static_cast<__mmask16>(count >= kLanes ? 0xFFFF : (1 << count) - 1);
}

// Other lanes are zero; their memory is not read.
DEEPER_AVX512_INLINE __m512 Load(const float* from, __mmask16 lanes) {
  return _mm512_maskz_loadu_ps(lanes, from);
}
DEEPER_AVX512_INLINE __m512 Load(const bf16* from, __mmask16 lanes) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, from)), 16));
}

// The memory of other lanes does not change.
DEEPER_AVX512_INLINE void Store(float* to, __mmask16 lanes, __m512 values) {
  _mm512_mask_storeu_ps(to, lanes, values);
}
DEEPER_AVX512_INLINE void Store(bf16* to, __mmask16 lanes, __m512 values) {
  const __m512i bits = _mm512_castps_si512(values);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
  const __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  const __m512i result = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
  _mm256_mask_storeu_epi16(to, lanes, _mm512_cvtepi32_epi16(_mm512_srli_epi32(result, 16)));
}

}  // namespace deeper::avx512

#endif
