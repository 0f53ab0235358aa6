#include "kernels/ops/lrn.h"

#include "absl/strings/str_cat.h"
#include "kernels/ops/backend.h"

namespace deeper {

absl::StatusOr<OpShape> InferLrn(const LrnParams& params, const Shape& x) {
  if (params.size < 1 || params.size % 2 == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("lrn: size must be odd and positive, but is ", params.size));
  }
  OpShape shape;
  shape.y = x;
  return shape;
}

absl::StatusOr<std::unique_ptr<Op>> MakeLrn(const LrnParams& params, const TensorDesc& x,
                                            const OpOptions& options, Device& device) {
  if (auto shape = InferLrn(params, x.shape); !shape.ok()) return shape.status();
  if (x != device.FeatureMap(x.shape, x.dtype)) {
    return absl::UnimplementedError("lrn: x must be in the device's layout of feature maps");
  }
  return DEEPER_ON(device, MakeLrn)(params, x, options, device);
}

}  // namespace deeper
