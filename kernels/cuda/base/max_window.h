// The maxima of 3x3 pixels, for 8 channels of bf16 at once.
#pragma once

#include <cstdint>

#include "kernels/base/host_device.h"
#include "kernels/cuda/base/bf16_pairs.h"

namespace deeper {

// 8 channels of a pixel, which move as one unit. In memory they are bf16: hence may_alias.
struct __attribute__((may_alias, aligned(16))) Octet {
  uint32_t pairs[4];
};

// A pixel of an image, the centre of a window of 3x3, and which of its neighbours are outside the image.
struct WindowCentre {
  int pixel;  // its index
  int width;  // of the image
  bool above, below, left, right;
};
DEEPER_HD inline WindowCentre CentreAt(int pixel, int row, int column, int height, int width) {
  return {pixel, width, row == 0, row == height - 1, column == 0, column == width - 1};
}

// row * 3 + column of each maximum in its window, the first in scan order. If the maximum is a NaN, the
// position is that of any pixel of the window.
struct __attribute__((may_alias, aligned(8))) Positions {
  uint32_t words[2];
};

struct Maxima {
  Octet values;
  Positions positions;
};

// In place of the position of a maximum that is not positive, where a ReLU masks its gradient.
constexpr uint8_t kNoMaximum = 9;
DEEPER_HD inline Positions MaskedPositions(const Maxima& maxima) {
  constexpr uint32_t kNone = kNoMaximum * 0x01010101u;
  Positions masked;
  for (int i = 0; i < 2; ++i) {
    const uint32_t positive =
        BytesOf(IsLargerPair(maxima.values.pairs[2 * i], 0), IsLargerPair(maxima.values.pairs[2 * i + 1], 0));
    masked.words[i] = Selected(positive, maxima.positions.words[i], kNone);
  }
  return masked;
}

// address(pixel) is that of the channels of a pixel. All are loaded before the first is used.
template <class Address>
DEEPER_HD Maxima MaximaOf(const WindowCentre& centre, const Address& address) {
  constexpr uint32_t kBoth = 0x10001u;  // a number in both halves of a word
  const auto [pixel, width, above, below, left, right] = centre;
  const int upper = above ? pixel : pixel - width, lower = below ? pixel : pixel + width;
  const int back = left ? 0 : -1, forth = right ? 0 : 1;
  // A pixel outside is replaced by one that precedes it in scan order, or by the first one inside. It is then
  // never larger than the largest so far.
  const int first = upper + back;
  const int pixels[9] = {
      first,        above ? first : upper, above ? first : upper + forth, left ? first : pixel - 1,
      pixel,        pixel + forth,         left ? pixel : lower - 1,      lower,
      lower + forth};
  Octet window[9];
  for (int i = 0; i < 9; ++i) window[i] = *reinterpret_cast<const Octet*>(address(pixels[i]));
  Maxima maxima;
  maxima.values = window[0];
  uint32_t places[4];
  for (uint32_t& place : places) place = (above ? 3 * kBoth : 0) + (left ? kBoth : 0);
  for (uint32_t i = 1; i < 9; ++i) {
    for (int j = 0; j < 4; ++j) {
      const uint32_t larger = IsLargerPair(window[i].pairs[j], maxima.values.pairs[j]);
      maxima.values.pairs[j] = LargerPair(maxima.values.pairs[j], window[i].pairs[j]);
      places[j] = Selected(larger, i * kBoth, places[j]);
    }
  }
  maxima.positions = {{BytesOf(places[0], places[1]), BytesOf(places[2], places[3])}};
  return maxima;
}

// Adds if byte number `byte` of two words is the same.
DEEPER_HD inline void AddIfEqual(float& sum, float value, uint32_t word, uint32_t other, int byte) {
  const uint32_t mask = 0xFFu << byte * 8;
#ifdef __CUDA_ARCH__
  // PTX ISA, "lop3": (word ^ other) & mask. nvcc needs two instructions for it.
  asm("{\n"
      ".reg .pred differs, never;\n"
      "setp.ne.u32 never, 0, 0;\n"
      "lop3.or.b32 _|differs, %2, %3, %4, 0x28, never;\n"
      "@!differs add.f32 %0, %0, %1;\n"
      "}"
      : "+f"(sum)
      : "f"(value), "r"(word), "r"(other), "r"(mask));
#else
  if (((word ^ other) & mask) == 0) sum += value;
#endif
}

}  // namespace deeper
