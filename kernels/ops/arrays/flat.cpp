#include "kernels/ops/arrays/flat.h"

#include "kernels/ops/backend.h"

namespace deeper {

void Accumulate(Device& device, const float* x, float* into, int64_t count) {
  DEEPER_ON(device, Accumulate)(device, x, into, count);
}

void Scale(Device& device, float factor, float* x, int64_t count) {
  DEEPER_ON(device, Scale)(device, factor, x, count);
}

void Narrow(Device& device, const float* x, void* to, int64_t count) {
  DEEPER_ON(device, Narrow)(device, x, to, count);
}

}  // namespace deeper
