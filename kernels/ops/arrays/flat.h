// Small passes over flat arrays, on the device's stream.
#pragma once

#include <cstdint>

#include "kernels/base/device.h"

namespace deeper {

// into[i] += x[i]: adds the gradients of one micro-batch to those of the others. fp32.
void Accumulate(Device& device, const float* x, float* into, int64_t count);

// x[i] *= factor: turns sums over ranks into means. fp32.
void Scale(Device& device, float factor, float* x, int64_t count);

// to[i] = bf16(x[i]).
void Narrow(Device& device, const float* x, void* to, int64_t count);

// Backends.
void AccumulateCpu(Device& device, const float* x, float* into, int64_t count);
void ScaleCpu(Device& device, float factor, float* x, int64_t count);
void NarrowCpu(Device& device, const float* x, void* to, int64_t count);
void AccumulateCuda(Device& device, const float* x, float* into, int64_t count);
void ScaleCuda(Device& device, float factor, float* x, int64_t count);
void NarrowCuda(Device& device, const float* x, void* to, int64_t count);
// to[i] = float(x[i]), x bf16.
void WidenCuda(Device& device, const void* x, float* to, int64_t count);

}  // namespace deeper
