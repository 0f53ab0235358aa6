#include "kernels/ops/softmax_loss.h"

#include "kernels/base/check.h"
#include "kernels/ops/backend.h"

namespace deeper {

void SoftmaxLoss(Device& device, const SoftmaxLossArguments& arguments) {
  const TensorDesc& logits = arguments.logits.desc;
  DEEPER_CHECK(logits.layout == Layout::kNchw && logits.shape.spatial() == 1, logits.shape.ToString());
  DEEPER_ON(device, SoftmaxLoss)(device, arguments);
}

size_t SoftmaxLossWorkspaceBytes(Device& device, const TensorDesc& logits) {
  return DEEPER_ON(device, SoftmaxLossWorkspaceBytes)(logits);
}

}  // namespace deeper
