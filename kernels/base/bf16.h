// bfloat16 as 16 bits. Rounds to nearest even and keeps NaN.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/base/host_device.h"

namespace deeper {

struct bf16 {
  uint16_t bits;
};

DEEPER_HD inline float ToFloat(bf16 x) {
  return std::bit_cast<float>(uint32_t{x.bits} << 16);
}
DEEPER_HD inline float ToFloat(float x) {
  return x;
}

DEEPER_HD inline bf16 ToBf16(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = u + 0x7FFFu + ((u >> 16) & 1u);
  const bool nan = (u & 0x7FFFFFFFu) > 0x7F800000u;
  return {static_cast<uint16_t>((nan ? u | 0x400000u : rounded) >> 16)};
}

template <class T>
DEEPER_HD T FromFloat(float x) {
  if constexpr (sizeof(T) == 2) {
    return ToBf16(x);
  } else {
    return x;
  }
}

}  // namespace deeper
