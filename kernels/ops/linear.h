// Fully connected layer: y = x W^T + b, with optional ReLU.
//
// x: [N,C,1,1] kNchw; y: [N,K,1,1] kNchw, same dtype. Parameters "weight" [K,C], "bias" [K]. Accumulation in
// fp32. Backward: one dx part, overwritten; gradients overwritten, fp32. Errors: InvalidArgument if x is not
// a vector (h = w = 1): put a Flatten or a global pool before it.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/base/device.h"
#include "kernels/base/op.h"

namespace deeper {

struct LinearParams {
  int64_t out_features = 0;
  bool relu = false;
};

absl::StatusOr<OpShape> InferLinear(const LinearParams& params, const Shape& x);
absl::StatusOr<std::unique_ptr<Op>> MakeLinear(const LinearParams& params, const TensorDesc& x,
                                               const OpOptions& options, Device& device);

// Backends: arguments are valid already, and `shape` is what InferLinear says of them.
absl::StatusOr<std::unique_ptr<Op>> MakeLinearCpu(const LinearParams& params, const OpShape& shape,
                                                  const TensorDesc& x, const OpOptions& options,
                                                  Device& device);
absl::StatusOr<std::unique_ptr<Op>> MakeLinearCuda(const LinearParams& params, const OpShape& shape,
                                                   const TensorDesc& x, const OpOptions& options,
                                                   Device& device);

}  // namespace deeper
