// The launch of a functor over an index space (cuda_for_each.h): all that a stand-in for a GPU has to
// replace.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/base/kernel_launch.h"

namespace deeper {

constexpr int kThreads = 256;  // of a block

template <class Body>
__global__ void __launch_bounds__(kThreads, 2) ForEachKernel(int64_t count, Body body) {
  AwaitPreviousKernel();
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) body(i);
}

// Whether this program has code of the kernel for the current GPU. If not, cudaErrorNoKernelImageForDevice or
// cudaErrorInvalidDeviceFunction.
template <class Body>
cudaError_t FindForEachCode() {
  cudaFuncAttributes attributes = {};
  return cudaFuncGetAttributes(&attributes, ForEachKernel<Body>);
}

// `count` is from 1 to 2^39, so that the blocks are fewer than a grid allows. Errors are cudaGetLastError's.
template <class Body>
void LaunchForEach(int64_t count, const Body& body, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
  LaunchKernel(ForEachKernel<Body>, blocks, kThreads, 0, stream, count, body);
}

}  // namespace deeper
