// The table of ops. An op is a parameter struct `P` in kernels/ops/x.h with:
//   P::name(), P::kTakesSlices    as KindOf and TakesSlices below
//   Infer(P, Shape)               in x.cpp, or next to P if it is short: the shape rule
//   Check(P, OpSetup)             in x.cpp: which layouts and types of x it takes, if not all (backend.h)
//   MakeCpu, MakeCuda(P, OpSetup) in x_cpu.cpp and x_cuda.cu: prepare the op from valid arguments
// Its row is an alternative of OpParams. See also docs/contributing.md.
#pragma once

#include <string_view>
#include <variant>

#include "kernels/ops/backend.h"
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

// Whether x may be a slice of channels (TensorDesc::pitch) on devices that support slices.
bool TakesSlices(const OpParams& params);

// Shape rule. Errors: InvalidArgument if the op does not fit x (a kernel larger than the padded image, a
// zero-sized output, ...).
absl::StatusOr<OpShape> InferOp(const OpParams& params, const Shape& x);

// Prepares the op on the device. Errors: as InferOp, and Unimplemented if the backend has no kernel for a
// layout or a type.
MadeOp MakeOp(const OpParams& params, const TensorDesc& x, const OpOptions& options, Device& device);

}  // namespace deeper
