#include "kernels/ops/inception/inception.h"

#include "kernels/base/status.h"

namespace deeper {

std::array<InceptionBranch, 4> InceptionBranches(const InceptionParams& p) {
  const auto convolution = [&p](const char* prefix, int64_t channels, int64_t kernel) {
    Conv2dParams conv = {.out_channels = channels, .kernel = kernel, .pad = kernel / 2};
    conv.batch_norm = p.batch_norm;
    conv.norm = p.norm;
    return InceptionBranch::Convolution{prefix, conv};
  };
  std::array<InceptionBranch, 4> branches;
  branches[0].convolutions = {convolution("branch1.", p.c1, 1)};
  branches[1].convolutions = {convolution(p.c2_reduce > 0 ? "branch2.1." : "branch2.", p.c2, 3)};
  branches[2].convolutions = {
      convolution(p.c3_reduce > 0 ? "branch3.1." : "branch3.", p.c3, p.branch3_kernel)};
  branches[3].pool = true;
  const auto reduce = [&](InceptionBranch& branch, const char* prefix, int64_t channels) {
    if (channels > 0)
      branch.convolutions.insert(branch.convolutions.begin(), convolution(prefix, channels, 1));
  };
  reduce(branches[1], "branch2.0.", p.c2_reduce);
  reduce(branches[2], "branch3.0.", p.c3_reduce);
  reduce(branches[3], "branch4.1.", p.c4);
  return branches;
}

absl::StatusOr<OpShape> Infer(const InceptionParams& p, const Shape& x) {
  if (p.c1 <= 0 || p.c2 <= 0 || p.c3 <= 0 || p.c2_reduce < 0 || p.c3_reduce < 0 || p.c4 < 0 ||
      p.branch3_kernel % 2 != 1) {
    return InvalidArgument("inception: c1 ", p.c1, ", c2 ", p.c2, " and c3 ", p.c3,
                           " must be positive, c2_reduce ", p.c2_reduce, ", c3_reduce ", p.c3_reduce,
                           " and c4 ", p.c4, " not negative, and branch3_kernel ", p.branch3_kernel, " odd");
  }
  OpShape shape;
  for (const InceptionBranch& branch : InceptionBranches(p)) {
    Shape in = x;
    if (branch.pool && !branch.convolutions.empty()) shape.inner_elements += x.elements();
    for (const auto& [prefix, params] : branch.convolutions) {
      ASSIGN_OR_RETURN(OpShape conv, Infer(params, in));
      for (ParamSpec& spec : conv.params) {
        spec.name = prefix + spec.name;
        shape.params.push_back(std::move(spec));
      }
      shape.macs += conv.macs;
      shape.inner_elements += conv.inner_elements;
      if (&params != &branch.convolutions.back().params) shape.inner_elements += conv.y.elements();
      in = conv.y;
    }
  }
  shape.y = {x.n, p.out_channels(x.c), x.h, x.w};
  return shape;
}

absl::Status Check(const InceptionParams&, const OpSetup& s) {
  if (s.x.Dense() == s.device.FeatureMap(s.x.shape, s.x.dtype)) return absl::OkStatus();
  return Unimplemented("inception ", s.options.name, ": x must be a feature map in the device's layout");
}

}  // namespace deeper
