// into[i] += x[i]: adds gradients of one micro-batch to those of the others. fp32, `count` elements, on the
// device's stream.
#pragma once

#include <cstdint>

#include "kernels/device.h"

namespace deeper {

void Accumulate(Device& device, const float* x, float* into, int64_t count);

}  // namespace deeper
