// The Inception module of "Going Deeper with Convolutions" (Szegedy et al. 2015, fig. 2b) as ONE op, so that
// a backend can fuse it.
//
//   branch1: 1x1 -> c1        branch2: 1x1 -> c2_reduce, 3x3 p1 -> c2
//   branch3: 1x1 -> c3_reduce, KxK -> c3 (K = 5, or 3)      branch4: maxpool 3x3/1 p1, 1x1 -> c4
//   y = concat over channels (branch1, branch2, branch3, branch4); bias (or batch norm) and ReLU on every
//   convolution
//
// x: [N,C,H,W], y: [N, c1+c2+c3+c4, H, W], both feature maps (Device::FeatureMap) of the same dtype. On CUDA
// x may be a slice, and y is a slice if the module is fused (OpOptions::fuse). Fast widths c1..c4 are
// multiples of the CPU's channel block, on CUDA of 8; others also work. Backward: dx has up to four parts, or
// one part and the gradient of a pool (OpNeeds::pooled_dx). Parameter gradients overwritten, fp32. The naive
// module (fig. 2a) has c2_reduce = c3_reduce = 0: the 3x3 and 5x5 read x. It also has c4 = 0: y contains the
// pool's output (C channels) directly.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "kernels/ops/backend.h"
#include "kernels/ops/conv2d/conv2d.h"
#include "kernels/ops/pool.h"

namespace deeper {

struct InceptionParams {
  static constexpr std::string_view name() { return "inception"; }
  static constexpr bool kTakesSlices = true;

  int64_t c1 = 0;
  int64_t c2_reduce = 0, c2 = 0;
  int64_t c3_reduce = 0, c3 = 0;
  int64_t c4 = 0;
  int64_t branch3_kernel = 5;  // 3 in torchvision's model
  bool batch_norm = false;
  NormParams norm = {};
  bool dy_is_masked = false;  // as in Conv2dParams

  int64_t out_channels(int64_t in_channels) const { return c1 + c2 + c3 + (c4 > 0 ? c4 : in_channels); }
};

// Parameters, in this order: branch1.conv.*, branch2.0.conv.*, branch2.1.conv.*, branch3.0.conv.*,
// branch3.1.conv.*, branch4.1.conv.* (".conv.weight", ".conv.bias", or ".conv.weight", ".bn.*"). A naive
// module has branch2.conv.* and branch3.conv.* and no branch4.
absl::StatusOr<OpShape> Infer(const InceptionParams& params, const Shape& x);
absl::Status Check(const InceptionParams& params, const OpSetup& setup);
MadeOp MakeCpu(const InceptionParams& params, const OpSetup& setup);
MadeOp MakeCuda(const InceptionParams& params, const OpSetup& setup);

// A branch as a backend builds it: an optional pool, then a chain of convolutions.
struct InceptionBranch {
  struct Convolution {
    std::string prefix;  // prefix of its parameters' names
    Conv2dParams params;
  };
  bool pool = false;
  std::vector<Convolution> convolutions;
};

constexpr PoolParams kInceptionPool = {.kind = PoolParams::Kind::kMax, .kernel = 3, .stride = 1, .pad = 1};

// Branches in the order of y's channels.
std::array<InceptionBranch, 4> InceptionBranches(const InceptionParams& params);

// The module as a sequence of branch ops, on any device: the reference for fused modules. Requires valid
// arguments.
MadeOp MakeInceptionBranches(const InceptionParams& params, const OpSetup& setup);

}  // namespace deeper
