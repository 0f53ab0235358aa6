#include "kernels/cuda/base/cuda_for_each.h"
#include "kernels/ops/arrays/flat.h"

namespace deeper {
namespace {

struct Add {
  const float* x;
  float* into;
  DEEPER_HD void operator()(int64_t i) const { into[i] += x[i]; }
};

struct Multiply {
  float factor;
  float* x;
  DEEPER_HD void operator()(int64_t i) const { x[i] *= factor; }
};

template <class From, class To>
struct Convert {
  const From* x;
  To* to;
  DEEPER_HD void operator()(int64_t i) const { to[i] = FromFloat<To>(ToFloat(x[i])); }
};

}  // namespace

void AccumulateCuda(Device& device, const float* x, float* into, int64_t count) {
  ForEach(AsCuda(device), {"accumulate", 12 * count}, count, Add{x, into});
}

void ScaleCuda(Device& device, float factor, float* x, int64_t count) {
  ForEach(AsCuda(device), {"scale", 8 * count}, count, Multiply{factor, x});
}

void NarrowCuda(Device& device, const float* x, void* to, int64_t count) {
  ForEach(AsCuda(device), {"narrow", 6 * count}, count, Convert<float, bf16>{x, static_cast<bf16*>(to)});
}

void WidenCuda(Device& device, const void* x, float* to, int64_t count) {
  ForEach(AsCuda(device), {"widen", 6 * count}, count, Convert<bf16, float>{static_cast<const bf16*>(x), to});
}

}  // namespace deeper
