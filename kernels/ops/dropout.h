// Dropout, inverted: in training y = x * mask / (1 - p), mask drawn per element; otherwise y = x.
//
// x, y: same shape, layout and dtype, any layout. The mask is a pure function of (seed, epoch, sample, op
// name, element), where an element is numbered (h * W + w) * C + c: the same bits on every device and in
// every layout. It is drawn again in Backward, so nothing is saved. Backward: one dx part, overwritten.
// Errors: InvalidArgument unless 0 <= p < 1.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/base/device.h"
#include "kernels/base/op.h"

namespace deeper {

struct DropoutParams {
  float p = 0.5f;
};

absl::StatusOr<OpShape> InferDropout(const DropoutParams& params, const Shape& x);
absl::StatusOr<std::unique_ptr<Op>> MakeDropout(const DropoutParams& params, const TensorDesc& x,
                                                const OpOptions& options, Device& device);

// Backends: arguments are valid already.
std::unique_ptr<Op> MakeDropoutCpu(const DropoutParams& params, const TensorDesc& x, const OpOptions& options,
                                   Device& device);
std::unique_ptr<Op> MakeDropoutCuda(const DropoutParams& params, const TensorDesc& x,
                                    const OpOptions& options, Device& device);

}  // namespace deeper
