// The closed set of ops: one variant of their parameter structs, one shape rule, one factory. To add an op,
// see CONTRIBUTING.md.
#pragma once

#include <memory>
#include <string_view>
#include <variant>

#include "absl/status/statusor.h"
#include "kernels/base/device.h"
#include "kernels/base/op.h"
#include "kernels/ops/conv2d/conv2d.h"
#include "kernels/ops/dropout.h"
#include "kernels/ops/flatten.h"
#include "kernels/ops/inception/inception.h"
#include "kernels/ops/linear.h"
#include "kernels/ops/lrn.h"
#include "kernels/ops/pool.h"

namespace deeper {

using OpParams = std::variant<Conv2dParams, InceptionParams, PoolParams, GlobalAvgPoolParams, LrnParams,
                              DropoutParams, FlattenParams, LinearParams>;

// "conv2d", "inception", ... for tables.
std::string_view KindOf(const OpParams& params);

// Whether x may be a slice of channels (TensorDesc::pitch), on devices that have such.
bool TakesSlices(const OpParams& params);

// Shape rule: InvalidArgument if the op does not fit x (a kernel larger than the padded image, a zero-sized
// output, ...).
absl::StatusOr<OpShape> InferOp(const OpParams& params, const Shape& x);

// Prepares the op on the device. Same errors as InferOp, and Unimplemented for what the backend has no kernel
// for: a layout, a type, OpOptions::sum_over_ranks.
absl::StatusOr<std::unique_ptr<Op>> MakeOp(const OpParams& params, const TensorDesc& x,
                                           const OpOptions& options, Device& device);

}  // namespace deeper
