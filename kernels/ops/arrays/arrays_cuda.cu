#include <cmath>

#include "kernels/cuda/base/cuda_for_each.h"
#include "kernels/ops/arrays/arrays.h"

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

// A lane takes every kLanes-th element, a group takes every kGroups-th lane. Neighbouring threads read
// neighbouring elements.
constexpr int64_t kLanes = 1 << 16, kGroups = 1 << 8;

struct FindInLane {
  const float* x;
  int64_t count;
  uint32_t* lanes;
  DEEPER_HD void operator()(int64_t lane) const {
    uint32_t found = 0;
    for (int64_t i = lane; i < count; i += kLanes) found |= !std::isfinite(x[i]);
    lanes[lane] = found;
  }
};

struct Join {
  const uint32_t* from;
  int64_t count, stride;
  uint32_t* to;
  DEEPER_HD void operator()(int64_t first) const {
    uint32_t found = 0;
    for (int64_t i = first; i < count; i += stride) found |= from[i];
    to[first] = found;
  }
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

void FindNonFiniteCuda(Device& device, const float* x, int64_t count, uint32_t* found, void* workspace) {
  CudaDevice& cuda = AsCuda(device);
  auto* const lanes = static_cast<uint32_t*>(workspace);
  uint32_t* const groups = lanes + kLanes;
  ForEach(cuda, {"non-finite in lanes", 4 * (count + kLanes)}, kLanes, FindInLane{x, count, lanes});
  ForEach(cuda, {"non-finite in groups", 4 * (kLanes + kGroups)}, kGroups,
          Join{lanes, kLanes, kGroups, groups});
  ForEach(cuda, {"non-finite", 4 * (kGroups + 1)}, 1, Join{groups, kGroups, 1, found});
}

size_t FindNonFiniteWorkspaceBytesCuda(Device&) {
  return (kLanes + kGroups) * sizeof(uint32_t);
}

}  // namespace deeper
