// Sums columns over all tiles of pixels. A block handles 32 columns with 32 threads per column. Thread j adds
// the tiles j, j + 32, ..., and a tree adds the threads.
#include "kernels/cuda/base/kernel_launch.h"
#include "kernels/cuda/tensor_core/conv_kernels.h"

namespace deeper::conv {
namespace {

constexpr int kBlockColumns = 32, kThreadsOfColumn = 32;

__global__ void __launch_bounds__(kBlockColumns* kThreadsOfColumn)
    AddTiles(const float* partial, int tiles, int columns, float* sums) {
  AwaitPreviousKernel();
  __shared__ float own[kThreadsOfColumn][kBlockColumns];
  const int column = static_cast<int>(blockIdx.x * kBlockColumns + threadIdx.x);
  const int first = static_cast<int>(threadIdx.y);
  float sum = 0;
  if (column < columns) {
    for (int tile = first; tile < tiles; tile += kThreadsOfColumn)
      sum += partial[int64_t{tile} * columns + column];
  }
  own[first][threadIdx.x] = sum;
  for (int half = kThreadsOfColumn / 2; half > 0; half /= 2) {
    __syncthreads();
    if (first < half) own[first][threadIdx.x] += own[first + half][threadIdx.x];
  }
  if (first == 0 && column < columns) sums[column] = own[0][threadIdx.x];
}

}  // namespace

cudaError_t LaunchSums(const float* partial, int tiles, int columns, float* sums, cudaStream_t stream) {
  return LaunchKernel(AddTiles, CeilDiv(columns, kBlockColumns), dim3(kBlockColumns, kThreadsOfColumn), 0,
                      stream, partial, tiles, columns, sums);
}

}  // namespace deeper::conv
