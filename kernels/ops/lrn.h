// Local response normalisation across channels (Krizhevsky et al. 2012, section 3.3, with Caffe's and
// PyTorch's alpha / size):
//   y[c] = x[c] * (k + alpha / size * sum of x[j]^2 over the `size` channels around c) ^ -beta
//
// x, y: [N,C,H,W] feature maps (Device::FeatureMap), same dtype. Backward: one dx part, overwritten.
// Errors: InvalidArgument if size is even or not positive.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/base/device.h"
#include "kernels/base/op.h"

namespace deeper {

struct LrnParams {
  int64_t size = 5;
  float alpha = 1e-4f;
  float beta = 0.75f;
  float k = 1.0f;
};

absl::StatusOr<OpShape> InferLrn(const LrnParams& params, const Shape& x);
absl::StatusOr<std::unique_ptr<Op>> MakeLrn(const LrnParams& params, const TensorDesc& x,
                                            const OpOptions& options, Device& device);

// Backends: arguments are valid already.
absl::StatusOr<std::unique_ptr<Op>> MakeLrnCpu(const LrnParams& params, const TensorDesc& x,
                                               const OpOptions& options, Device& device);
absl::StatusOr<std::unique_ptr<Op>> MakeLrnCuda(const LrnParams& params, const TensorDesc& x,
                                                const OpOptions& options, Device& device);

}  // namespace deeper
