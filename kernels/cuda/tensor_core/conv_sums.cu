// Sums columns over all tiles of pixels.
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

}  // namespace

cudaError_t LaunchSums(const float* partial, int tiles, int columns, float* sums, cudaStream_t stream) {
  return LaunchKernel(AddTiles, CeilDiv(columns, kBlockColumns), dim3(kBlockColumns, kThreadsOfColumn), 0,
                      stream, partial, tiles, columns, sums);
}

}  // namespace deeper::conv
