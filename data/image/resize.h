// Reads the pixels of a window of an image: one separable filter for every resize, crop and mirror image.
#pragma once

#include "data/image/augment.h"
#include "data/image/image.h"

namespace deeper {

// The pixels that `window` of an image of this size reads to fill height x width.
PixelRect PixelsOf(const Window& window, Filter filter, int height, int width, ImageSize image);

// Applies `sampling` to `image` and fills out[channels, height, width]. `scales` has an entry for each of
// `channels`, which is the image's number, or 3 for a grey image (repeated). Centres outside the image give
// 0.
void SampleImage(const Image& image, const Sampling& sampling, const PixelScale* scales, int channels,
                 int height, int width, float* out);

// Mixes two samples [channels, height, width] that are each other's partners.
void MixSamples(const Mix& mix, int channels, int height, int width, float* a, float* b);

// Resizes a window of `src` to height x width, and rounds to the nearest 8-bit value. `outside`: a value per
// channel, 0 to 255, of the parts outside the image; nullptr: 0.
Image ResizeWindow(const Image& src, const Window& window, Filter filter, int height, int width,
                   const float* outside = nullptr);

}  // namespace deeper
