#include "kernels/ops/flatten.h"

#include "kernels/ops/backend.h"

namespace deeper {

absl::StatusOr<OpShape> InferFlatten(const FlattenParams&, const Shape& x) {
  OpShape shape;
  shape.y = {x.n, x.c * x.h * x.w};
  return shape;
}

absl::StatusOr<std::unique_ptr<Op>> MakeFlatten(const FlattenParams&, const TensorDesc& x,
                                                const OpOptions& options, Device& device) {
  return DEEPER_ON(device, MakeFlatten)(x, options, device);
}

}  // namespace deeper
