#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/ops/arrays/verdict.h"

namespace deeper {

void FindLostLossCpu(Device&, const HeadResult* losses, int64_t heads, bool first, uint32_t* found) {
  if (first) *found = 0;
  for (int64_t head = 0; head < heads; ++head) *found |= !std::isfinite(losses[head].loss_sum);
}

void JoinFlagCpu(Device&, const uint32_t* flag, uint32_t* into) {
  *into |= *flag;
}

void SpoilIfCpu(Device&, const uint32_t* flag, float* x) {
  if (*flag != 0) *x = std::numeric_limits<float>::quiet_NaN();
}

void CopyIfCpu(Device&, const uint32_t* flag, const float* from, float* to, int64_t count) {
  if (*flag != 0) std::copy_n(from, count, to);
}

}  // namespace deeper
