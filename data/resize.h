// Pixels of a window of an image: one separable filter for every resize, crop and mirror image.
#pragma once

#include "data/augment.h"
#include "data/dataset.h"

namespace deeper {

// kBilinear: two taps an axis at half-pixel centres, PyTorch's interpolate(mode="bilinear",
// align_corners=False). kAntialias: when shrinking, the triangle widens by the ratio, as Pillow's BILINEAR
// does.
enum class Filter { kBilinear, kAntialias };

// Fills out[channels, height, width] with `window` of `image`. `scales` has an entry for each of `channels`,
// which is that of the image, or 3 for a grey image (repeated). Centres beyond the image give 0.
void SampleWindow(const Image& image, const Window& window, Filter filter, const PixelScale* scales,
                  int channels, int height, int width, float* out);

// A window that lies in `src` as height x width, rounded to the nearest 8-bit value.
Image ResizeWindow(const Image& src, const Window& window, Filter filter, int height, int width);
// The whole of `src`, likewise.
Image ResizeBilinear(const Image& src, int height, int width, bool antialias);

}  // namespace deeper
