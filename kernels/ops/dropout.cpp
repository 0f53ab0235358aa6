#include "kernels/ops/dropout.h"

#include "kernels/base/status.h"

namespace deeper {

absl::StatusOr<OpShape> Infer(const DropoutParams& params, const Shape& x) {
  if (!(params.p >= 0 && params.p < 1)) {
    return InvalidArgument("dropout: p must lie in [0, 1), but is ", params.p);
  }
  OpShape shape;
  shape.y = x;
  return shape;
}

}  // namespace deeper
