// Batch normalisation over the rows of all ranks: what comes on top of oneDNN's, which knows this rank's
// only.
//
// oneDNN normalises by statistics that it is given, and its backward pass then takes them for constants. Here
// they are measured, by one exchange between the ranks, and the gradient gets what they contribute to it, by
// another. Rows that only pad the batch (StepContext::rows) do not count: they are normalised like the
// others, and where their dy is zero, their dx is.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/base/op.h"
#include "kernels/base/tensor.h"

namespace deeper {

class SyncBatchNormCpu {
 public:
  // x: a feature map of the CPU, fp32 or bf16: of all that is called x or dx below.
  SyncBatchNormCpu(const TensorDesc& x, SumOverRanks sum);

  // mean, variance (biased): [channels] over the first `rows` images of every rank's x. Returns the values
  // that a channel has on all ranks together; where it has none, mean and variance are left as they are.
  int64_t Measure(const void* x, int64_t rows, float* mean, float* variance);

  struct Gradient {
    const void* x = nullptr;
    int64_t rows = 0;
    const float *mean = nullptr, *variance = nullptr, *scale = nullptr;  // [channels]
    float eps = 0;
    const float *dscale = nullptr, *dshift = nullptr;  // [channels] of this rank
    void* dx = nullptr;                                // with constant statistics; completed in place
  };
  // After Measure of the same x.
  void Complete(const Gradient& gradient);

 private:
  TensorDesc x_;
  SumOverRanks sum_;
  int64_t count_ = 0;         // of the last Measure
  std::vector<double> sums_;  // what ranks exchange
  // [padded channels] dx -= constant + slope * (x - mean); zero where channels are padding.
  std::vector<float> constant_, slope_, mean_;
};

}  // namespace deeper
