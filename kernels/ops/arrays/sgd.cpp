#include "kernels/ops/arrays/sgd.h"

#include "kernels/ops/backend.h"

namespace deeper {

void SgdStep(Device& device, const SgdParams& params, const float* lr, const SgdArrays& arrays) {
  DEEPER_ON(device, SgdStep)(device, params, lr, arrays);
}

}  // namespace deeper
