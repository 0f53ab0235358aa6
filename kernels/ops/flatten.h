// Feature map to vector: y [N, C*H*W, 1, 1] kNchw, elements in the order C, H, W (PyTorch's flatten), from x
// in any layout. Backward: one dx part in x's layout, overwritten.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/base/device.h"
#include "kernels/base/op.h"

namespace deeper {

struct FlattenParams {};

absl::StatusOr<OpShape> InferFlatten(const FlattenParams& params, const Shape& x);
absl::StatusOr<std::unique_ptr<Op>> MakeFlatten(const FlattenParams& params, const TensorDesc& x,
                                                const OpOptions& options, Device& device);

// Backends: arguments are valid already.
std::unique_ptr<Op> MakeFlattenCpu(const TensorDesc& x, const OpOptions& options, Device& device);
std::unique_ptr<Op> MakeFlattenCuda(const TensorDesc& x, const OpOptions& options, Device& device);

}  // namespace deeper
