// Adds partial sums in a fixed order. For .cu files only.
#pragma once

#include <cstdint>

namespace deeper::conv {

// A block has 32 columns (threadIdx.x) with 32 threads per column (threadIdx.y).
constexpr int kBlockColumns = 32, kThreadsOfColumn = 32;

// The column of this thread.
__device__ inline int ColumnOfThread() {
  return static_cast<int>(blockIdx.x * kBlockColumns + threadIdx.x);
}

// The sum of a column of partial [rows][columns], right in the first thread of the column. Thread j adds the
// rows j, j + 32, ..., and a tree adds the threads. All threads of the block must call it, once per launch.
__device__ inline float ColumnSum(const float* partial, int rows, int columns) {
  __shared__ float own[kThreadsOfColumn][kBlockColumns];
  const int column = ColumnOfThread();
  const int first = static_cast<int>(threadIdx.y);
  float sum = 0;
  if (column < columns) {
    for (int row = first; row < rows; row += kThreadsOfColumn)
      sum += partial[int64_t{row} * columns + column];
  }
  own[first][threadIdx.x] = sum;
  for (int half = kThreadsOfColumn / 2; half > 0; half /= 2) {
    __syncthreads();
    if (first < half) own[first][threadIdx.x] += own[first + half][threadIdx.x];
  }
  return own[first][threadIdx.x];
}

}  // namespace deeper::conv
