// Passes over flat arrays in device memory, on the device's stream.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/ops/backend.h"

namespace deeper {

// into[i] += x[i]: adds the gradients of one micro-batch to those of the others. fp32.
DEEPER_BACKENDS(void, Accumulate, Device& device, const float* x, float* into, int64_t count);

// x[i] *= factor: turns sums over ranks into means. fp32.
DEEPER_BACKENDS(void, Scale, Device& device, float factor, float* x, int64_t count);

// to[i] = bf16(x[i]).
DEEPER_BACKENDS(void, Narrow, Device& device, const float* x, void* to, int64_t count);

// *found = 1 if any x[i] is NaN or infinite, else 0. The result decides whether a step's gradients are
// usable. x: fp32. workspace: FindNonFiniteWorkspaceBytes(device), 16-byte aligned.
DEEPER_BACKENDS(void, FindNonFinite, Device& device, const float* x, int64_t count, uint32_t* found,
                void* workspace);
DEEPER_BACKENDS(size_t, FindNonFiniteWorkspaceBytes, Device& device);

}  // namespace deeper
