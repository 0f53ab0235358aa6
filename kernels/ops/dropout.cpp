#include "kernels/ops/dropout.h"

#include "absl/strings/str_cat.h"
#include "kernels/ops/backend.h"

namespace deeper {

absl::StatusOr<OpShape> InferDropout(const DropoutParams& params, const Shape& x) {
  if (!(params.p >= 0 && params.p < 1)) {
    return absl::InvalidArgumentError(absl::StrCat("dropout: p must lie in [0, 1), but is ", params.p));
  }
  OpShape shape;
  shape.y = x;
  return shape;
}

absl::StatusOr<std::unique_ptr<Op>> MakeDropout(const DropoutParams& params, const TensorDesc& x,
                                                const OpOptions& options, Device& device) {
  if (auto shape = InferDropout(params, x.shape); !shape.ok()) return shape.status();
  return DEEPER_ON(device, MakeDropout)(params, x, options, device);
}

}  // namespace deeper
