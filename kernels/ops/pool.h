// Max and average pooling, and the global average pooling at the end of NIN and GoogLeNet.
//
// x: [N,C,H,W], y: [N,C,OH,OW], both feature maps (Device::FeatureMap) of the same dtype, fp32 or bf16. OH =
// (H + 2 pad - kernel) / stride + 1, rounded down, or up with `ceil` (PyTorch's ceil_mode: the last window
// must still start inside the image or its left padding). Max: the first maximum in scan order (rows, then
// columns) receives the whole gradient. Average: the divisor does not count padding. Backward: one dx part,
// overwritten. Aux heads on small images: a kernel larger than the padded input is an error, unless `clamp`
// is set. `clamp` reduces the window to the input size (a 5x5/3 pool on a 4x4, 2x2 or 1x1 map becomes a 4x4,
// 2x2 or 1x1 average, with output 1x1).
#pragma once

#include <algorithm>

#include "kernels/ops/backend.h"

namespace deeper {

struct PoolParams {
  static constexpr bool kTakesSlices = true;

  enum class Kind { kMax, kAverage };
  Kind kind = Kind::kMax;
  int64_t kernel = 3;
  int64_t stride = 2;
  int64_t pad = 0;
  bool ceil = false;
  bool clamp = false;
  bool mask_dx = false;  // max only: x is the output of a ReLU. Its mask is applied to dx here, stride^2
                         // cheaper than later

  constexpr std::string_view name() const { return kind == Kind::kMax ? "max_pool" : "avg_pool"; }
  // The side of the window for a given side of the image.
  int64_t window(int64_t size) const { return clamp ? std::min(kernel, size + 2 * pad) : kernel; }
};

absl::StatusOr<OpShape> Infer(const PoolParams& params, const Shape& x);
absl::Status Check(const PoolParams& params, const OpSetup& setup);
MadeOp MakeCpu(const PoolParams& params, const OpSetup& setup);
MadeOp MakeCuda(const PoolParams& params, const OpSetup& setup);

// y: [N,C,1,1] kNchw = mean of x over H,W.
struct GlobalAvgPoolParams {
  static constexpr std::string_view name() { return "global_avg_pool"; }
  static constexpr bool kTakesSlices = true;
};

absl::StatusOr<OpShape> Infer(const GlobalAvgPoolParams& params, const Shape& x);
absl::Status Check(const GlobalAvgPoolParams& params, const OpSetup& setup);
MadeOp MakeCpu(const GlobalAvgPoolParams& params, const OpSetup& setup);
MadeOp MakeCuda(const GlobalAvgPoolParams& params, const OpSetup& setup);

}  // namespace deeper
