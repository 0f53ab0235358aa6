// Inverted dropout. Training: y = x * mask / (1 - p), with a mask drawn per element. Evaluation: y = x.
//
// x, y: same shape, layout and dtype, any layout. The mask is a pure function of (seed, epoch, sample, op
// name, element), where an element has the number (h * W + w) * C + c. It therefore has the same bits on
// every device and in every layout. Backward draws it again, so nothing is saved. Backward: one dx part,
// overwritten. Errors: InvalidArgument unless 0 <= p < 1.
#pragma once

#include "kernels/base/status.h"
#include "kernels/ops/backend.h"

namespace deeper {

struct DropoutParams {
  static constexpr std::string_view name() { return "dropout"; }
  static constexpr bool kTakesSlices = false;

  float p = 0.5f;
};

inline absl::StatusOr<OpShape> Infer(const DropoutParams& params, const Shape& x) {
  if (params.p >= 0 && params.p < 1) return OpShape{x, {}};
  return InvalidArgument("dropout: p must be in [0, 1), but is ", params.p);
}
MadeOp MakeCpu(const DropoutParams& params, const OpSetup& setup);
MadeOp MakeCuda(const DropoutParams& params, const OpSetup& setup);

}  // namespace deeper
