// Writes a network's input on the device, from decoded pixels or from normalised images.
#pragma once

#include <cstddef>

#include "kernels/base/image_sampling.h"
#include "kernels/ops/backend.h"

namespace deeper {

// Overwrites images (Device::Images), padding channels included. `batch` is device memory: a PackedImage per
// row, then those that are only partners, then the pixels at their offsets. A grey image fills every channel.
// Centres outside the image give 0, the mean. CUDA only: loaders do not pack batches for the CPU.
DEEPER_BACKENDS(void, SampleImages, Device& device, const std::byte* batch, const PixelScales& scales,
                const TensorDesc& desc, void* images);

// The same from normalised images: [N,C,H,W] fp32 in device memory.
DEEPER_BACKENDS(void, PlaceImages, Device& device, const float* normalised, const TensorDesc& desc,
                void* images);

}  // namespace deeper
