#include "kernels/base/check.h"
#include "kernels/ops/arrays/arrays.h"
#include "kernels/ops/images.h"

namespace deeper {

void PlaceImagesCpu(Device& device, const float* normalised, const TensorDesc& desc, void* images) {
  if (desc.dtype == DType::kBf16) {
    Narrow(device, normalised, images, desc.stored_elements());
  } else {
    device.Copy(images, normalised, desc.bytes());
  }
}

void SampleImagesCpu(Device&, const std::byte*, const PixelScales&, const TensorDesc&, void*) {
  DEEPER_CHECK(false, "packed batches need CUDA");
}

}  // namespace deeper
