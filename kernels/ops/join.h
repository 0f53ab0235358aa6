// Passes over activations that libraries do not provide efficiently: summing gradient parts, masking them by
// a ReLU, and copying slices of channels. fp32 or bf16; sums in fp32, in the order of the parts.
#pragma once

#include <vector>

#include "kernels/ops/backend.h"

namespace deeper {

constexpr size_t kMaxGradientParts = 8;

// out = sum of the channels [first_channel, first_channel + out.c) of the parts, all of layout `from`. 0
// where `y` (the output of a ReLU, of layout `from`; nullptr: no mask) is not positive. `out` is dense and
// overwritten.
DEEPER_BACKENDS(void, JoinChannels, Device& device, const std::vector<void*>& parts, const void* y,
                const TensorDesc& from, int64_t first_channel, const Tensor& out);

// to[:, first_channel : first_channel + from.c] = from. Pasting the last channels also zeroes the padding
// channels of `to`.
DEEPER_BACKENDS(void, PasteChannels, Device& device, const Tensor& from, int64_t first_channel,
                const Tensor& to);

// out = sum of the parts, and 0 where `y` is not positive. All have the layout `desc`. out may be one of the
// parts.
void JoinGradientsCpu(const std::vector<void*>& parts, const void* y, const TensorDesc& desc, void* out);

// The destination of a range of channels of every pixel. The next target takes the following channels.
struct ChannelTarget {
  int64_t channels = 0;
  void* data = nullptr;  // address of the first pixel
  int64_t pitch = 0;     // elements from pixel to pixel
};
constexpr size_t kMaxChannelTargets = 4;

// The gradient of a tensor, in the parts that its readers provide, and its destinations.
struct GradientJoin {
  TensorDesc desc;                     // of the tensor: kNhwc, possibly a slice, or vectors
  std::vector<void*> parts;            // dense; the gradient is their sum
  std::vector<PooledGradient> pooled;  // added to the sum after spreading
  const void* y = nullptr;  // the tensor itself, if it is the output of a ReLU that masks the gradient
  std::vector<ChannelTarget> targets;  // at most kMaxChannelTargets; may alias parts, pixel by pixel
  float* sums = nullptr;      // [channels] sums of the gradient over pixels, in a fixed order; or nullptr
  void* workspace = nullptr;  // JoinWorkspaceBytes(desc), for the sums
};
constexpr size_t kMaxPooledParts = 2;

// If the only part is the only target and no mask applies, this computes the sums only.
void JoinGradientsCuda(Device& device, GradientJoin join);
size_t JoinWorkspaceBytes(const TensorDesc& desc);

// The same with one dense target `out`, for ops with a dense y.
void JoinGradientsCuda(Device& device, const std::vector<void*>& parts, const void* y, const TensorDesc& desc,
                       void* out, float* sums = nullptr, void* workspace = nullptr);

}  // namespace deeper
