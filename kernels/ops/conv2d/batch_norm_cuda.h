// Batch normalisation of a feature map with optional ReLU, for Conv2d and Inception on CUDA (NormParams in
// conv2d.h). x, y and their gradients: kNhwc, dense or slices, fp32 or bf16; statistics and parameters [C]
// fp32. All sums in a fixed order.
#pragma once

#include <vector>

#include "kernels/base/device.h"
#include "kernels/base/tensor.h"
#include "kernels/ops/conv2d/conv2d.h"
#include "kernels/ops/join.h"

namespace deeper {

struct BatchNormArguments {
  TensorDesc x_desc, y_desc;  // x_desc alone for Backward
  bool relu = false;
  const float* scale = nullptr;
  const float* shift = nullptr;
  void* x = nullptr;
  void* y = nullptr;
  float* mean = nullptr;      // of the batch; written by Forward, read by Backward; nullptr: evaluation
  float* inverse = nullptr;   // 1 / sqrt(biased variance + eps), likewise
  void* workspace = nullptr;  // BatchNormWorkspaceBytes(x_desc)
};

size_t BatchNormWorkspaceBytes(const TensorDesc& desc);

// y is overwritten. Training: mean and inverse too, and the running statistics are moved as NormParams says.
// Evaluation, where `mean` is nullptr: y from the running statistics, which stay.
void BatchNormForwardCuda(Device& device, const NormParams& params, const BatchNormArguments& a,
                          float* running_mean, float* running_var);
// From dy (masked here by the ReLU, recomputed from x): dx, dscale, dshift overwritten. dx may be dy, pixel
// by pixel.
void BatchNormBackwardCuda(Device& device, const BatchNormArguments& a, const Tensor& dy,
                           const std::vector<ChannelTarget>& dx, float* dscale, float* dshift);

}  // namespace deeper
