// Small sums over flat fp32 arrays, on the device's stream.
#pragma once

#include <cstdint>

#include "kernels/device.h"

namespace deeper {

// into[i] += x[i]: adds the gradients of one micro-batch to those of the others.
void Accumulate(Device& device, const float* x, float* into, int64_t count);

// x[i] *= factor: turns sums over ranks into means.
void Scale(Device& device, float factor, float* x, int64_t count);

}  // namespace deeper
