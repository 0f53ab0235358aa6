#include "kernels/ops/inception/inception.h"

#include "kernels/base/status.h"

namespace deeper {

std::array<InceptionBranch, 4> InceptionBranches(const InceptionParams& p) {
  struct Convolution {
    const char* prefix;
    int64_t channels, kernel;
  };
  const auto chain = [&p](std::initializer_list<Convolution> convolutions) {
    InceptionBranch branch;
    for (const auto& [prefix, channels, kernel] : convolutions) {
      if (channels == 0) continue;
      Conv2dParams conv = {.out_channels = channels, .kernel = kernel, .pad = kernel / 2};
      conv.batch_norm = p.batch_norm;
      conv.norm = p.norm;
      branch.convolutions.push_back({prefix, conv});
    }
    return branch;
  };
  const char* const second = p.c2_reduce > 0 ? "branch2.1." : "branch2.";
  const char* const third = p.c3_reduce > 0 ? "branch3.1." : "branch3.";
  std::array<InceptionBranch, 4> branches = {
      chain({{"branch1.", p.c1, 1}}), chain({{"branch2.0.", p.c2_reduce, 1}, {second, p.c2, 3}}),
      chain({{"branch3.0.", p.c3_reduce, 1}, {third, p.c3, p.branch3_kernel}}),
      chain({{"branch4.1.", p.c4, 1}})};
  branches[3].pool = true;
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
