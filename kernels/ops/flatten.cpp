#include "kernels/ops/flatten.h"

namespace deeper {

absl::StatusOr<OpShape> Infer(const FlattenParams&, const Shape& x) {
  OpShape shape;
  shape.y = {x.n, x.c * x.h * x.w};
  return shape;
}

}  // namespace deeper
