// The verdict on a training step, as flags in device memory that are 0 or 1. The work reads them when it
// runs, so that the host need not wait for them.
#pragma once

#include <cstdint>

#include "kernels/ops/backend.h"
#include "kernels/ops/softmax_loss.h"

namespace deeper {

// *found = 1 if a loss is NaN or infinite, else 0 if `first`, else unchanged. losses: [heads] in device
// memory.
DEEPER_BACKENDS(void, FindLostLoss, Device& device, const HeadResult* losses, int64_t heads, bool first,
                uint32_t* found);

// *into |= *flag.
DEEPER_BACKENDS(void, JoinFlag, Device& device, const uint32_t* flag, uint32_t* into);

// *x = NaN if *flag.
DEEPER_BACKENDS(void, SpoilIf, Device& device, const uint32_t* flag, float* x);

// to[i] = from[i] if *flag. fp32.
DEEPER_BACKENDS(void, CopyIf, Device& device, const uint32_t* flag, const float* from, float* to,
                int64_t count);

}  // namespace deeper
