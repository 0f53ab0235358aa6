// Whether a flat array is all finite: what decides if a step's gradients may be used.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/device.h"

namespace deeper {

// *found = 1 if some x[i] is NaN or infinite, else 0. x: fp32; everything in the device's memory, on its
// stream. workspace: FindNonFiniteWorkspaceBytes(device), 16-byte aligned.
void FindNonFinite(Device& device, const float* x, int64_t count, uint32_t* found, void* workspace);
size_t FindNonFiniteWorkspaceBytes(Device& device);

// Backends.
void FindNonFiniteCpu(Device& device, const float* x, int64_t count, uint32_t* found, void* workspace);
void FindNonFiniteCuda(Device& device, const float* x, int64_t count, uint32_t* found, void* workspace);
size_t FindNonFiniteWorkspaceBytesCpu();
size_t FindNonFiniteWorkspaceBytesCuda();

}  // namespace deeper
