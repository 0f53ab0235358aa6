#include "kernels/ops/pool.h"

#include "kernels/base/status.h"

namespace deeper {
namespace {

// Number of windows along a side of the image; 0 if none fits.
int64_t CountWindows(const PoolParams& p, int64_t size) {
  const int64_t room = size + 2 * p.pad - p.window(size);
  if (room < 0) return 0;
  const int64_t count = (room + (p.ceil ? p.stride - 1 : 0)) / p.stride + 1;
  // The last window must not be entirely in the right padding.
  return (count - 1) * p.stride >= size + p.pad ? count - 1 : count;
}

absl::Status CheckFeatureMap(const TensorDesc& x, const Device& device) {
  if ((x.dtype == DType::kF32 || x.dtype == DType::kBf16) &&
      x.Dense() == device.FeatureMap(x.shape, x.dtype)) {
    return absl::OkStatus();
  }
  return Unimplemented("pool: no kernel for ", NameOf(x.dtype), " ", x.shape.ToString(),
                       " outside the device's layout of feature maps");
}

}  // namespace

absl::StatusOr<OpShape> Infer(const PoolParams& p, const Shape& x) {
  if (p.kernel < 1 || p.stride < 1 || p.pad < 0 || 2 * p.pad > p.kernel) {
    return InvalidArgument("pool: kernel ", p.kernel, ", stride ", p.stride, ", pad ", p.pad,
                           "; kernel and stride must be at least 1, pad 0 to half the kernel");
  }
  if (p.mask_dx && p.kind != PoolParams::Kind::kMax) {
    return InvalidArgument("pool: only max pooling supports mask_dx");
  }
  const Shape y = {x.n, x.c, CountWindows(p, x.h), CountWindows(p, x.w)};
  if (y.spatial() == 0) {
    return InvalidArgument("pool: a kernel of ", p.kernel, " with pad ", p.pad, " does not fit the image of ",
                           x.ToString(), ": use larger images");
  }
  return OpShape{y, {}};
}

absl::Status Check(const PoolParams&, const OpSetup& setup) {
  return CheckFeatureMap(setup.x, setup.device);
}

absl::StatusOr<OpShape> Infer(const GlobalAvgPoolParams&, const Shape& x) {
  return OpShape{{x.n, x.c}, {}};
}

absl::Status Check(const GlobalAvgPoolParams&, const OpSetup& setup) {
  return CheckFeatureMap(setup.x, setup.device);
}

}  // namespace deeper
