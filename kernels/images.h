// From decoded pixels to a network's input, in one pass: cut a window out of each image, bring it to size,
// mirror it, normalise it. The CPU does it in the loader's threads (data/resize.h), CUDA here, on the GPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/device.h"
#include "kernels/host_device.h"
#include "kernels/tensor.h"

namespace deeper {

// A rectangle of whole pixels, x and y of its top left one.
struct PixelRect {
  int32_t x = 0, y = 0, width = 0, height = 0;

  DEEPER_HD bool empty() const { return width == 0 || height == 0; }
  DEEPER_HD bool Contains(int row, int column) const {
    return row >= y && row < y + height && column >= x && column < x + width;
  }
};

// A rectangle of an image in pixels, x and y of its top left corner: pixel (row i, column j) covers [j, j +
// 1) x [i, i + 1). Parts beyond the image read as the mean.
struct Window {
  float x = 0, y = 0, width = 0, height = 0;
  bool flip = false;  // mirrored left-right after cutting
};

// Where the centre of output `index` of `size` lies along one axis of a window.
DEEPER_HD inline float SourceCentre(float origin, float extent, int size, int index) {
  return origin + (static_cast<float>(index) + 0.5f) * (extent / static_cast<float>(size));
}

// value = pixel * scale + shift, of one output channel.
struct PixelScale {
  float scale = 1, shift = 0;
};

constexpr int kMaxImageChannels = 3;
struct PixelScales {
  PixelScale channel[kMaxImageChannels];
};

// One decoded image of a packed batch, and what becomes of it.
struct PackedImage {
  int64_t offset = 0;  // of its pixels (HWC, 8 bits) from the beginning of the batch, in bytes
  int32_t height = 0, width = 0, channels = 0;
  Window window;
};

// images (of Device::Images) is overwritten, padding channels included. `batch` is device memory: a
// PackedImage for each row, then pixels where these say. A grey image fills every channel. Bilinear, two taps
// an axis at half-pixel centres; centres beyond the image give 0. For CUDA only: elsewhere loaders do not
// pack.
void SampleImages(Device& device, const std::byte* batch, const PixelScales& scales, const TensorDesc& desc,
                  void* images);

// The same from normalised images, [N,C,H,W] fp32 in device memory.
void PlaceImages(Device& device, const float* normalised, const TensorDesc& desc, void* images);

// Backends.
void PlaceImagesCpu(Device& device, const float* normalised, const TensorDesc& desc, void* images);
void PlaceImagesCuda(Device& device, const float* normalised, const TensorDesc& desc, void* images);
void SampleImagesCuda(Device& device, const std::byte* batch, const PixelScales& scales,
                      const TensorDesc& desc, void* images);

}  // namespace deeper
