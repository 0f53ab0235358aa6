#include "kernels/ops/images.h"

#include "kernels/base/check.h"
#include "kernels/ops/backend.h"

namespace deeper {

void PlaceImages(Device& device, const float* normalised, const TensorDesc& desc, void* images) {
  DEEPER_ON(device, PlaceImages)(device, normalised, desc, images);
}

void SampleImages([[maybe_unused]] Device& device, [[maybe_unused]] const std::byte* batch,
                  [[maybe_unused]] const PixelScales& scales, [[maybe_unused]] const TensorDesc& desc,
                  [[maybe_unused]] void* images) {
#ifdef DEEPER_CUDA
  if (device.type() == DeviceType::kCuda) return SampleImagesCuda(device, batch, scales, desc, images);
#endif
  DEEPER_CHECK(false, "packed batches are for CUDA");
}

}  // namespace deeper
