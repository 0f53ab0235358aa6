#include "kernels/cuda/base/cuda_for_each.h"
#include "kernels/cuda/plans/widened.h"

namespace deeper {
namespace {

struct WidenElement {
  const bf16* from;
  float* to;
  DEEPER_HD void operator()(int64_t i) const { to[i] = ToFloat(from[i]); }
};

}  // namespace

Launch WidenLaunch(int64_t count) {
  return {"widen", count * int64_t{sizeof(bf16) + sizeof(float)}};
}

KernelWork WidenWork(int64_t count) {
  return WorkOf(count, WidenElement{});
}

void Widen(const bf16* from, float* to, int64_t count, cudaStream_t stream) {
  LaunchForEach(count, WidenElement{from, to}, stream);
}

cudaError_t FindKernelCode() {
  return FindForEachCode<WidenElement>();
}

}  // namespace deeper
