#include <cmath>
#include <limits>

#include "kernels/cuda/base/cuda_for_each.h"
#include "kernels/ops/arrays/verdict.h"

namespace deeper {
namespace {

struct FindLost {
  const HeadResult* losses;
  int64_t heads;
  bool first;
  uint32_t* found;
  DEEPER_HD void operator()(int64_t) const {
    uint32_t lost = first ? 0 : *found;
    for (int64_t head = 0; head < heads; ++head) lost |= !std::isfinite(losses[head].loss_sum);
    *found = lost;
  }
};

struct JoinInto {
  const uint32_t* flag;
  uint32_t* into;
  DEEPER_HD void operator()(int64_t) const { *into |= *flag; }
};

struct Spoil {
  const uint32_t* flag;
  float nan;
  float* x;
  DEEPER_HD void operator()(int64_t) const {
    if (*flag != 0) *x = nan;
  }
};

struct Restore {
  const uint32_t* flag;
  const float* from;
  float* to;
  DEEPER_HD void operator()(int64_t i) const {
    if (*flag != 0) to[i] = from[i];
  }
};

}  // namespace

void FindLostLossCuda(Device& device, const HeadResult* losses, int64_t heads, bool first, uint32_t* found) {
  ForEach(AsCuda(device), {"non-finite loss", heads * int64_t{sizeof(HeadResult)}}, 1,
          FindLost{losses, heads, first, found});
}

void JoinFlagCuda(Device& device, const uint32_t* flag, uint32_t* into) {
  ForEach(AsCuda(device), {"join flags", 12}, 1, JoinInto{flag, into});
}

void SpoilIfCuda(Device& device, const uint32_t* flag, float* x) {
  ForEach(AsCuda(device), {"spoil", 8}, 1, Spoil{flag, std::numeric_limits<float>::quiet_NaN(), x});
}

void CopyIfCuda(Device& device, const uint32_t* flag, const float* from, float* to, int64_t count) {
  ForEach(AsCuda(device), {"restore", 8 * count}, count, Restore{flag, from, to});
}

}  // namespace deeper
