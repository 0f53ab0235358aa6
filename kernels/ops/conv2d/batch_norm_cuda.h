// Batch normalisation of a feature map with optional ReLU, for Conv2d and Inception on CUDA (NormParams in
// conv2d.h). x, y and their gradients are kNhwc, dense or slices, fp32 or bf16. Statistics and parameters are
// [C] fp32. All sums have a fixed order.
#pragma once

#include <vector>

#include "kernels/base/device.h"
#include "kernels/base/tensor.h"
#include "kernels/ops/conv2d/conv2d.h"
#include "kernels/ops/join.h"

namespace deeper {

// Statistics over the counted rows of all ranks (OpOptions::sum_over_ranks). The ranks exchange sums in fp64.
struct RankStatistics {
  SumOverRanks sum = nullptr;
  const StepContext* step = nullptr;
  // [RankSums(channels)] in device memory, kept from Forward to Backward: two values of each channel, and the
  // number of values per channel on all ranks.
  double* sums = nullptr;
};
constexpr int64_t RankSums(int64_t channels) {
  return 2 * channels + 1;
}

struct BatchNormArguments {
  TensorDesc x_desc, y_desc;  // Backward uses x_desc only
  bool relu = false;
  const float* scale = nullptr;
  const float* shift = nullptr;
  void* x = nullptr;
  void* y = nullptr;
  float* mean = nullptr;      // of the batch; written by Forward, read by Backward; nullptr: evaluation
  float* inverse = nullptr;   // 1 / sqrt(biased variance + eps), likewise
  void* workspace = nullptr;  // BatchNormWorkspaceBytes(x_desc)
  const RankStatistics* ranks = nullptr;  // nullptr: over all rows of x, in training
};

size_t BatchNormWorkspaceBytes(const TensorDesc& desc);

// Overwrites y. Training also writes mean and inverse and updates the running statistics as in NormParams. If
// no rank has a counted row, these stay, and y is normalised by them. Evaluation (`mean` is nullptr)
// normalises by the running statistics and does not change them.
void BatchNormForwardCuda(Device& device, const NormParams& params, const BatchNormArguments& a,
                          float* running_mean, float* running_var);
// Overwrites dx, dscale and dshift, computed from dy. Recomputes the ReLU from x to mask dy. dx may be dy;
// each pixel is read before it is written.
void BatchNormBackwardCuda(Device& device, const BatchNormArguments& a, const Tensor& dy,
                           const std::vector<ChannelTarget>& dx, float* dscale, float* dshift);

}  // namespace deeper
