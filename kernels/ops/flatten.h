// Feature map to vector. y: [N, C*H*W, 1, 1] kNchw, elements in the order C, H, W (PyTorch's flatten); x: any
// layout. Backward: one dx part in x's layout, overwritten.
#pragma once

#include "kernels/ops/backend.h"

namespace deeper {

struct FlattenParams {
  static constexpr std::string_view name() { return "flatten"; }
  static constexpr bool kTakesSlices = false;
};

inline absl::StatusOr<OpShape> Infer(const FlattenParams&, const Shape& x) {
  return OpShape{{x.n, x.c * x.h * x.w}, {}};
}
MadeOp MakeCpu(const FlattenParams& params, const OpSetup& setup);
MadeOp MakeCuda(const FlattenParams& params, const OpSetup& setup);

}  // namespace deeper
