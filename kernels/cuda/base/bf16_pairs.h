// Operations on two bf16 at once, which one instruction of the GPU does. A pair is a word; its first number
// is in the lower half. The same results on the host, except for the sign of the maximum of 0 and -0.
#pragma once

#include <cstdint>

#include "kernels/base/bf16.h"
#include "kernels/base/host_device.h"

namespace deeper {

DEEPER_HD inline float LowOf(uint32_t pair) {
  return std::bit_cast<float>(pair << 16);
}
DEEPER_HD inline float HighOf(uint32_t pair) {
  return std::bit_cast<float>(pair & 0xFFFF0000u);
}

// Rounds to nearest even.
DEEPER_HD inline uint32_t RoundedPair(float low, float high) {
#ifdef __CUDA_ARCH__
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));  // PTX ISA, "cvt"
  return pair;
#else
  return uint32_t{ToBf16(high).bits} << 16 | ToBf16(low).bits;
#endif
}

// The larger numbers. A NaN is larger than every number.
DEEPER_HD inline uint32_t LargerPair(uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
  uint32_t larger;
  asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(larger) : "r"(a), "r"(b));  // PTX ISA, "max"
  return larger;
#else
  const auto larger = [](float x, float y) { return y > x || y != y ? y : x; };
  return RoundedPair(larger(LowOf(a), LowOf(b)), larger(HighOf(a), HighOf(b)));
#endif
}

// All bits of a half are 1 where a > b, else 0. A NaN is not larger. On GPUs before 9.0, 0 is larger than -0.
DEEPER_HD inline uint32_t IsLargerPair(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  uint32_t mask;
  asm("set.gt.u32.bf16x2 %0, %1, %2;" : "=r"(mask) : "r"(a), "r"(b));  // PTX ISA, "set"
  return mask;
#elif defined(__CUDA_ARCH__)
  constexpr uint32_t kOnes = 0x3F803F80u, kSigns = 0x80008000u, kSpread = 0xBB99u;  // bytes 1 and 3
  uint32_t difference;                                                              // b - a
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(difference) : "r"(b), "r"(kOnes), "r"(a ^ kSigns));
  uint32_t mask;
  asm("prmt.b32 %0, %1, %1, %2;" : "=r"(mask) : "r"(difference), "n"(kSpread));
  return mask;
#else
  return (HighOf(a) > HighOf(b) ? 0xFFFF0000u : 0u) | (LowOf(a) > LowOf(b) ? 0xFFFFu : 0u);
#endif
}

// `a` where all bits of the mask are 1, `b` where they are 0.
DEEPER_HD inline uint32_t Selected(uint32_t mask, uint32_t a, uint32_t b) {
  return (a & mask) | (b & ~mask);
}

// The lower bytes of the four halves of two pairs.
DEEPER_HD inline uint32_t BytesOf(uint32_t first, uint32_t second) {
#ifdef __CUDA_ARCH__
  return __byte_perm(first, second, 0x6420);
#else
  return (first & 0xFFu) | (first >> 8 & 0xFF00u) | (second & 0xFFu) << 16 | (second << 8 & 0xFF000000u);
#endif
}

}  // namespace deeper
