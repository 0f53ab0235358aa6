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

__device__ inline void Add(float4& sum, const float4& other) {
  sum.x += other.x, sum.y += other.y, sum.z += other.z, sum.w += other.w;
}

// A block has 32 quads of columns with 8 threads each. Thread j of a quad adds the splits j, j + 8, ..., with
// several loads in flight, and a tree adds the threads.
constexpr int kBlockQuads = 32, kThreadsOfQuad = 8;

__global__ void __launch_bounds__(kBlockQuads* kThreadsOfQuad)
    AddSplits(const float4* partial, int splits, int quads, float4* sums) {
  AwaitPreviousKernel();
  __shared__ float4 own[kThreadsOfQuad][kBlockQuads];
  const int quad = static_cast<int>(blockIdx.x * kBlockQuads + threadIdx.x);
  const int first = static_cast<int>(threadIdx.y);
  float4 sum = {};
  if (quad < quads) {
#pragma unroll 4
    for (int split = first; split < splits; split += kThreadsOfQuad)
      Add(sum, partial[int64_t{split} * quads + quad]);
  }
  own[first][threadIdx.x] = sum;
  for (int half = kThreadsOfQuad / 2; half > 0; half /= 2) {
    __syncthreads();
    if (first < half) Add(own[first][threadIdx.x], own[first + half][threadIdx.x]);
  }
  if (first == 0 && quad < quads) sums[quad] = own[0][threadIdx.x];
}

}  // namespace

cudaError_t LaunchSums(const float* partial, int tiles, int columns, float* sums, cudaStream_t stream) {
  return LaunchKernel(AddTiles, CeilDiv(columns, kBlockColumns), dim3(kBlockColumns, kThreadsOfColumn), 0,
                      stream, partial, tiles, columns, sums);
}

cudaError_t LaunchSplitSums(const float* partial, int splits, int columns, float* sums, cudaStream_t stream) {
  const int quads = columns / 4;
  return LaunchKernel(AddSplits, CeilDiv(quads, kBlockQuads), dim3(kBlockQuads, kThreadsOfQuad), 0, stream,
                      reinterpret_cast<const float4*>(partial), splits, quads,
                      reinterpret_cast<float4*>(sums));
}

}  // namespace deeper::conv
