#include "kernels/ops/lrn.h"

#include "kernels/base/status.h"

namespace deeper {

absl::StatusOr<OpShape> Infer(const LrnParams& params, const Shape& x) {
  if (params.size < 1 || params.size % 2 == 0) {
    return InvalidArgument("lrn: size must be odd and positive, but is ", params.size);
  }
  return OpShape{x, {}};
}

absl::Status Check(const LrnParams&, const OpSetup& s) {
  if (s.x == s.device.FeatureMap(s.x.shape, s.x.dtype)) return absl::OkStatus();
  return Unimplemented("lrn: x must be in the device's layout of feature maps");
}

}  // namespace deeper
