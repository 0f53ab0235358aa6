// The launch of a functor over an index space (cuda_for_each.h): all that a stand-in for a GPU has to
// replace.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace deeper {

constexpr int kThreads = 256;  // of a block

template <class Body>
__global__ void __launch_bounds__(kThreads) ForEachKernel(int64_t count, Body body) {
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) body(i);
}

// `count` > 0. Errors are cudaGetLastError's.
template <class Body>
void LaunchForEach(int64_t count, const Body& body, cudaStream_t stream) {
  constexpr int64_t kMaxBlocks = int64_t{1} << 30;  // below the limit of a grid's x
  const int64_t blocks = (count + kThreads - 1) / kThreads;
  ForEachKernel<<<static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks), kThreads, 0, stream>>>(
      count, body);
}

}  // namespace deeper
