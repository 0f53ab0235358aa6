// Local response normalisation across channels (Krizhevsky et al. 2012, section 3.3, with Caffe's and
// PyTorch's alpha / size):
//   y[c] = x[c] * (k + alpha / size * sum of x[j]^2 over the `size` channels around c) ^ -beta
//
// x, y: [N,C,H,W] feature maps (Device::FeatureMap), same dtype. Backward: one dx part, overwritten.
// Errors: InvalidArgument if size is even or not positive.
#pragma once

#include "kernels/ops/backend.h"

namespace deeper {

struct LrnParams {
  static constexpr std::string_view name() { return "lrn"; }
  static constexpr bool kTakesSlices = false;

  int64_t size = 5;
  float alpha = 1e-4f;
  float beta = 0.75f;
  float k = 1.0f;
};

absl::StatusOr<OpShape> Infer(const LrnParams& params, const Shape& x);
absl::Status Check(const LrnParams& params, const OpSetup& setup);
MadeOp MakeCpu(const LrnParams& params, const OpSetup& setup);
MadeOp MakeCuda(const LrnParams& params, const OpSetup& setup);

}  // namespace deeper
