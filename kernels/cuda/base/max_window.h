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

}  // namespace deeper
