// Sums columns over all tiles of pixels, or over splits of them.
#include <cstdint>

#include "kernels/cuda/base/kernel_launch.h"
#include "kernels/cuda/tensor_core/conv_column_sums.h"
#include "kernels/cuda/tensor_core/conv_kernels.h"

namespace deeper::conv {
namespace {

__global__ void __launch_bounds__(kBlockColumns* kThreadsOfColumn)
    AddTiles(const float* partial, int tiles, int columns, float* sums) {
  AwaitPreviousKernel();
  const float sum = ColumnSum(partial, tiles, columns);
  if (threadIdx.y == 0 && ColumnOfThread() < columns) sums[ColumnOfThread()] = sum;
}

constexpr int kSplitThreads = 128;

// Four columns of a thread. The loads of several splits are in flight.
__global__ void __launch_bounds__(kSplitThreads)
    AddSplits(const float4* partial, int splits, int quads, float4* sums) {
  AwaitPreviousKernel();
  const int quad = static_cast<int>(blockIdx.x * kSplitThreads + threadIdx.x);
  if (quad >= quads) return;
  float4 sum = {};
#pragma unroll 8
  for (int split = 0; split < splits; ++split) {
    const float4 part = partial[int64_t{split} * quads + quad];
    sum.x += part.x, sum.y += part.y, sum.z += part.z, sum.w += part.w;
  }
  sums[quad] = sum;
}

}  // namespace

cudaError_t LaunchSums(const float* partial, int tiles, int columns, float* sums, cudaStream_t stream) {
  return LaunchKernel(AddTiles, CeilDiv(columns, kBlockColumns), dim3(kBlockColumns, kThreadsOfColumn), 0,
                      stream, partial, tiles, columns, sums);
}

cudaError_t LaunchSplitSums(const float* partial, int splits, int columns, float* sums, cudaStream_t stream) {
  const int quads = columns / 4;
  return LaunchKernel(AddSplits, CeilDiv(quads, kSplitThreads), kSplitThreads, 0, stream,
                      reinterpret_cast<const float4*>(partial), splits, quads,
                      reinterpret_cast<float4*>(sums));
}

}  // namespace deeper::conv
