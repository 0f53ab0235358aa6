#include "kernels/flat.h"
#include "kernels/images.h"

namespace deeper {

void PlaceImagesCpu(Device& device, const float* normalised, const TensorDesc& desc, void* images) {
  if (desc.dtype == DType::kBf16) {
    Narrow(device, normalised, images, desc.stored_elements());
  } else {
    device.Copy(images, normalised, desc.bytes());
  }
}

}  // namespace deeper
