#include "kernels/ops/arrays/flat.h"
#include "kernels/ops/images.h"

namespace deeper {

void PlaceImagesCpu(Device& device, const float* normalised, const TensorDesc& desc, void* images) {
  if (desc.dtype == DType::kBf16) {
    Narrow(device, normalised, images, desc.stored_elements());
  } else {
    device.Copy(images, normalised, desc.bytes());
  }
}

}  // namespace deeper
