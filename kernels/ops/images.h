// From decoded pixels, or normalised images, to a network's input, on the device.
#pragma once

#include <cstddef>

#include "kernels/base/image_sampling.h"
#include "kernels/ops/backend.h"

namespace deeper {

// images (of Device::Images) is overwritten, padding channels included. `batch` is device memory: a
// PackedImage for each row, others that are only partners, then pixels where these say. A grey image fills
// every channel. Centres beyond the image give 0, the mean. For CUDA only: elsewhere loaders do not pack.
DEEPER_BACKENDS(void, SampleImages, Device& device, const std::byte* batch, const PixelScales& scales,
                const TensorDesc& desc, void* images);

// The same from normalised images, [N,C,H,W] fp32 in device memory.
DEEPER_BACKENDS(void, PlaceImages, Device& device, const float* normalised, const TensorDesc& desc,
                void* images);

}  // namespace deeper
