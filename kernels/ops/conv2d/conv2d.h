// 2-D convolution (cross-correlation, as in other frameworks), with bias or batch norm, and optional ReLU.
//
//   y = act(norm(conv(x, weight) + bias))
//
// x: [N,C,H,W] in the device's layout of feature maps (Device::FeatureMap: kBlocked or kNhwc on the
// CPU, kNhwc on CUDA) or of images (Device::Images). y: [N,K,OH,OW], a feature map. Same dtype (fp32 or
// bf16). OH = (H + 2 pad - kernel) / stride + 1, rounded down. Accumulation in fp32. Backward: one dx part,
// overwritten; weight and bias gradients overwritten, fp32. One pass sums the dy parts and, with ReLU, masks
// them by y > 0.
#pragma once

#include "kernels/ops/backend.h"

namespace deeper {

// Batch normalisation after a convolution, as in PyTorch. The biased variance over N,H,W normalises; the
// unbiased variance updates running_var: running = (1 - momentum) * running + momentum * batch. With
// OpOptions::sum_over_ranks, N is the number of counted rows on all ranks.
struct NormParams {
  float eps = 1e-3f;
  float momentum = 0.1f;
};

struct Conv2dParams {
  static constexpr std::string_view name() { return "conv2d"; }
  static constexpr bool kTakesSlices = true;

  int64_t out_channels = 0;
  int64_t kernel = 1;
  int64_t stride = 1;
  int64_t pad = 0;
  bool relu = true;
  bool batch_norm = false;  // conv -> BN: parameters bn.weight, bn.bias, bn.running_mean, bn.running_var
                            // instead of conv.bias
  NormParams norm = {};
  bool dy_is_masked =
      false;  // the consumer's dx is already 0 where y is 0 (PoolParams::mask_dx): skip the ReLU mask
  // y is the 3x3 max pool, stride 2, pad 1, of act(...), which has a ReLU. In bf16 on CUDA, for a layer that
  // reads images of at most 4 channels and has no batch norm; Unimplemented elsewhere.
  bool max_pool = false;
};

// Parameters "conv.weight" [K,C,kernel,kernel] and "conv.bias" [K], or "bn.*".
absl::StatusOr<OpShape> Infer(const Conv2dParams& params, const Shape& x);
absl::Status Check(const Conv2dParams& params, const OpSetup& setup);
MadeOp MakeCpu(const Conv2dParams& params, const OpSetup& setup);
MadeOp MakeCuda(const Conv2dParams& params, const OpSetup& setup);

}  // namespace deeper
