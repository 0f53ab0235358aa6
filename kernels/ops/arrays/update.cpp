#include "kernels/ops/arrays/update.h"

#include "kernels/ops/backend.h"

namespace deeper {

void Update(Device& device, const UpdateRule& rule, const StepScalars* now, const UpdateArrays& arrays) {
  DEEPER_ON(device, Update)(device, rule, now, arrays);
}

}  // namespace deeper
