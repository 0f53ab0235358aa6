// Batch normalisation over the rows of all ranks. It complements oneDNN's, which covers this rank only.
//
// oneDNN normalises by given statistics, and its backward pass treats them as constants. This class measures
// the statistics with one exchange between the ranks and adds their contribution to the gradient with
// another. Rows that pad the batch (StepContext::rows) do not enter the statistics. They are normalised like
// the others, and their dx is zero if their dy is zero.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/base/op.h"
#include "kernels/base/tensor.h"

namespace deeper {

class SyncBatchNormCpu {
 public:
  // x: a feature map on the CPU, fp32 or bf16. It describes all arguments named x or dx below.
  SyncBatchNormCpu(const TensorDesc& x, SumOverRanks sum);

  // mean, variance (biased): [channels] over the first `rows` images of every rank's x. Returns the number of
  // values per channel on all ranks. If it is 0, mean and variance do not change.
  int64_t Measure(const void* x, int64_t rows, float* mean, float* variance);

  struct Gradient {
    const void* x = nullptr;
    int64_t rows = 0;
    const float *mean = nullptr, *variance = nullptr, *scale = nullptr;  // [channels]
    float eps = 0;
    const float *dscale = nullptr, *dshift = nullptr;  // [channels] of this rank
    void* dx = nullptr;                                // with constant statistics; completed in place
  };
  // Requires a previous Measure of the same x.
  void Complete(const Gradient& gradient);

 private:
  TensorDesc x_;
  SumOverRanks sum_;
  int64_t count_ = 0;         // of the last Measure
  std::vector<double> sums_;  // exchanged between ranks
  // [padded channels] dx -= constant + slope * (x - mean); zero for padding channels.
  std::vector<float> constant_, slope_, mean_;
};

}  // namespace deeper
