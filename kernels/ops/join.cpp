#include "kernels/ops/join.h"

#include "kernels/ops/backend.h"

namespace deeper {

void JoinChannels(Device& device, const std::vector<void*>& parts, const void* y, const TensorDesc& from,
                  int64_t first_channel, const Tensor& out) {
  DEEPER_ON(device, JoinChannels)(device, parts, y, from, first_channel, out);
}

void PasteChannels(Device& device, const Tensor& from, int64_t first_channel, const Tensor& to) {
  DEEPER_ON(device, PasteChannels)(device, from, first_channel, to);
}

}  // namespace deeper
