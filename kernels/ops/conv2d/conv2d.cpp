#include "kernels/ops/conv2d/conv2d.h"

#include "kernels/base/status.h"

namespace deeper {

absl::StatusOr<OpShape> Infer(const Conv2dParams& p, const Shape& x) {
  if (p.out_channels <= 0 || p.kernel <= 0 || p.stride <= 0 || p.pad < 0) {
    return InvalidArgument("conv2d: out_channels ", p.out_channels, ", kernel ", p.kernel, ", stride ",
                           p.stride, " must be positive and pad ", p.pad, " not negative");
  }
  const Shape y = {x.n, p.out_channels, (x.h + 2 * p.pad - p.kernel) / p.stride + 1,
                   (x.w + 2 * p.pad - p.kernel) / p.stride + 1};
  if (x.elements() <= 0 || p.kernel > x.h + 2 * p.pad || p.kernel > x.w + 2 * p.pad) {
    return InvalidArgument("conv2d: a ", p.kernel, "x", p.kernel, " kernel with pad ", p.pad,
                           " does not fit an input of ", x.ToString(),
                           ": use larger images or a smaller kernel");
  }
  const std::vector<int64_t> vector = {p.out_channels};
  OpShape shape;
  shape.y = y;
  shape.params = {{"conv.weight", {p.out_channels, x.c, p.kernel, p.kernel}, ParamRole::kWeight, Init::kHe}};
  if (p.batch_norm) {
    shape.params.push_back({"bn.weight", vector, ParamRole::kScale, Init::kOne});
    shape.params.push_back({"bn.bias", vector, ParamRole::kShift, Init::kZero});
    shape.params.push_back({"bn.running_mean", vector, ParamRole::kRunningMean, Init::kZero});
    shape.params.push_back({"bn.running_var", vector, ParamRole::kRunningVar, Init::kOne});
    shape.inner_elements = y.elements();  // the input of batch norm
  } else {
    shape.params.push_back({"conv.bias", vector, ParamRole::kBias, Init::kZero});
  }
  shape.macs = y.elements() * x.c * p.kernel * p.kernel;
  if (p.max_pool) shape.y = {y.n, y.c, (y.h - 1) / 2 + 1, (y.w - 1) / 2 + 1};
  return shape;
}

absl::Status Check(const Conv2dParams& params, const OpSetup& s) {
  constexpr int64_t kMostChannels = 4;
  const bool pools = s.device.type() == DeviceType::kCuda && s.x.shape.c <= kMostChannels && !s.wants_dx() &&
                     params.kernel > 1 && params.relu && !params.batch_norm;
  if (params.max_pool && !pools)
    return Unimplemented("conv2d ", s.options.name, ": not with a max pool in the same kernel");
  const Shape& y = s.shape.y;
  if (!params.batch_norm || !s.options.training || y.n * y.spatial() >= 2) return absl::OkStatus();
  return InvalidArgument("conv2d ", s.options.name,
                         ": batch norm cannot train on one value per channel, and the output is ",
                         y.ToString(), ": use a larger batch or larger images");
}

}  // namespace deeper
