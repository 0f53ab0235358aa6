#include "kernels/ops/linear.h"

#include "kernels/base/status.h"

namespace deeper {

absl::StatusOr<OpShape> Infer(const LinearParams& params, const Shape& x) {
  if (params.out_features < 1) {
    return InvalidArgument("linear: out_features must be positive, but is ", params.out_features);
  }
  if (x.spatial() != 1) {
    return InvalidArgument("linear: x is ", x.ToString(),
                           ", not a vector: put a flatten or a global pool before it");
  }
  OpShape shape;
  shape.y = {x.n, params.out_features};
  shape.params = {
      {"weight", {params.out_features, x.c}, ParamRole::kWeight, params.relu ? Init::kHe : Init::kXavier},
      {"bias", {params.out_features}, ParamRole::kBias, Init::kZero}};
  shape.macs = x.n * x.c * params.out_features;
  return shape;
}

absl::Status Check(const LinearParams&, const OpSetup& s) {
  if (s.x.layout == Layout::kNchw) return absl::OkStatus();
  return Unimplemented("linear: x must be a dense matrix (kNchw)");
}

}  // namespace deeper
