#include "kernels/ops/arrays/finite.h"

#include "kernels/ops/backend.h"

namespace deeper {

void FindNonFinite(Device& device, const float* x, int64_t count, uint32_t* found, void* workspace) {
  DEEPER_ON(device, FindNonFinite)(device, x, count, found, workspace);
}

size_t FindNonFiniteWorkspaceBytes(Device& device) {
  return DEEPER_ON(device, FindNonFiniteWorkspaceBytes)();
}

}  // namespace deeper
