// The transformations of an image on its way to a network's input: crop a window, resize, mirror, recolour,
// normalise, erase a rectangle, and mix with another image. This file computes single pixels. The CPU applies
// them row by row in the loader's threads (data/image/resize.h), CUDA on the GPU (kernels/ops/images.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/base/host_device.h"

namespace deeper {

// A rectangle of whole pixels; x and y give its top left pixel.
struct PixelRect {
  int32_t x = 0, y = 0, width = 0, height = 0;

  DEEPER_HD bool empty() const { return width == 0 || height == 0; }
  DEEPER_HD bool Contains(int row, int column) const {
    return row >= y && row < y + height && column >= x && column < x + width;
  }
};

// A rectangle of an image in pixels; x and y give its top left corner. Pixel (row i, column j) covers [j, j +
// 1) x [i, i + 1). Parts outside the image read as the mean.
struct Window {
  float x = 0, y = 0, width = 0, height = 0;
  bool flip = false;  // mirrored left-right after cutting
};

// The position of the centre of output `index` of `size` along one axis of a window.
DEEPER_HD inline float SourceCentre(float origin, float extent, int size, int index) {
  return origin + (static_cast<float>(index) + 0.5f) * (extent / static_cast<float>(size));
}

// kBilinear uses two taps per axis at half-pixel centres, as PyTorch's interpolate(mode="bilinear",
// align_corners=False). kAntialias widens the triangle by the ratio when it shrinks, as Pillow's BILINEAR
// does. One formula serves both, because a triangle of half-width 1, normalised over the pixels that exist,
// is bilinear interpolation clamped at the edges.
enum class Filter : int32_t { kBilinear, kAntialias };

DEEPER_HD inline float FilterRadius(Filter filter, float extent, int size) {
  const float ratio = extent / static_cast<float>(size);
  return filter == Filter::kAntialias && ratio > 1 ? ratio : 1.0f;
}

// The source pixels of one output along one axis. Empty if the centre of the output is outside the image.
struct Taps {
  int first = 0, count = 0;
};
DEEPER_HD inline Taps TapsAround(float centre, float radius, int source) {
  if (!(centre >= 0 && centre < static_cast<float>(source))) return {};
  const int first = std::max(0, static_cast<int>(floorf(centre - radius + 0.5f)));
  return {first, std::min(static_cast<int>(ceilf(2 * radius)), source - first)};
}
// Unnormalised: divide it by the sum over the taps.
DEEPER_HD inline float TapWeight(int pixel, float centre, float radius) {
  return fmaxf(0.0f, 1 - fabsf(static_cast<float>(pixel) + 0.5f - centre) / radius);
}

// Maps RGB in [0, 255] to RGB: channel c becomes m[c][0] R + m[c][1] G + m[c][2] B + m[c][3], clamped to [0,
// 255]. Grey is R = G = B.
struct ColorMatrix {
  float m[3][4] = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}};

  friend bool operator==(const ColorMatrix&, const ColorMatrix&) = default;
};
DEEPER_HD inline float Recolor(const float m[4], float r, float g, float b) {
  const float value = m[0] * r + m[1] * g + m[2] * b + m[3];
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

// Computes value = pixel * scale + shift for one output channel.
struct PixelScale {
  float scale = 1, shift = 0;
};

constexpr int kMaxImageChannels = 3;
struct PixelScales {
  PixelScale channel[kMaxImageChannels];
};

// The transformations of one image.
struct Sampling {
  Window window = {};
  Filter filter = Filter::kBilinear;
  ColorMatrix color = {};
  PixelRect erased = {};  // in the output; reads as the mean
};

// How a sample mixes with another sample, its partner: a share of every pixel (mixup), or all pixels of a
// rectangle of the output (cutmix).
struct Mix {
  float weight = 0;       // the partner's share, of every pixel or by area, and of the loss
  PixelRect pasted = {};  // empty: mixup
};
DEEPER_HD inline float PartnersShare(const Mix& mix, int row, int column) {
  if (mix.pasted.empty()) return mix.weight;
  return mix.pasted.Contains(row, column) ? 1.0f : 0.0f;
}

// One decoded image of a packed batch and its transformations.
struct PackedImage {
  int64_t offset = 0;  // of its pixels (HWC, 8 bits) from the start of the batch, in bytes
  int32_t height = 0, width = 0, channels = 0;
  Sampling sampling = {};
  int32_t partner = 0;  // index of the batch entry that it mixes with
  Mix mix = {};
};

}  // namespace deeper
