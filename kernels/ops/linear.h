// Fully connected layer: y = x W^T + b, with optional ReLU.
//
// x: [N,C,1,1] kNchw; y: [N,K,1,1] kNchw, same dtype. Parameters "weight" [K,C], "bias" [K]. Accumulation in
// fp32. Backward: one dx part, overwritten; gradients overwritten, fp32. Errors: InvalidArgument if x is not
// a vector (h = w = 1): put a Flatten or a global pool before it.
#pragma once

#include "kernels/ops/backend.h"

namespace deeper {

struct LinearParams {
  static constexpr std::string_view name() { return "linear"; }
  static constexpr bool kTakesSlices = false;

  int64_t out_features = 0;
  bool relu = false;
};

absl::StatusOr<OpShape> Infer(const LinearParams& params, const Shape& x);
absl::Status Check(const LinearParams& params, const OpSetup& setup);
MadeOp MakeCpu(const LinearParams& params, const OpSetup& setup);
MadeOp MakeCuda(const LinearParams& params, const OpSetup& setup);

}  // namespace deeper
