// The passes over activations that no library makes well: summing gradients that arrive in parts, masking
// them by a ReLU, and cutting or pasting channels. fp32 or bf16, sums in fp32 in the order of the parts.
#pragma once

#include <vector>

#include "kernels/ops/backend.h"

namespace deeper {

constexpr size_t kMaxGradientParts = 8;

// out = sum of the channels [first_channel, first_channel + out.c) of the parts, all of layout `from`, and 0
// where `y` (the output of a ReLU, of layout `from`; nullptr for none) is not positive. `out` is dense and
// overwritten.
DEEPER_BACKENDS(void, JoinChannels, Device& device, const std::vector<void*>& parts, const void* y,
                const TensorDesc& from, int64_t first_channel, const Tensor& out);

// to[:, first_channel : first_channel + from.c] = from. The last tensor pasted also zeroes the channels that
// pad `to`.
DEEPER_BACKENDS(void, PasteChannels, Device& device, const Tensor& from, int64_t first_channel,
                const Tensor& to);

// out = sum of the parts, and 0 where `y` is not positive. All have the layout `desc`. out may be one of the
// parts.
void JoinGradientsCpu(const std::vector<void*>& parts, const void* y, const TensorDesc& desc, void* out);

// Where some channels of every pixel go; those of the next target follow.
struct ChannelTarget {
  int64_t channels = 0;
  void* data = nullptr;  // of the first pixel
  int64_t pitch = 0;     // elements from pixel to pixel
};
constexpr size_t kMaxChannelTargets = 4;

// The gradient of a tensor as its readers hand it over, and where it goes.
struct GradientJoin {
  TensorDesc desc;                     // of the tensor: kNhwc, maybe a slice, or vectors
  std::vector<void*> parts;            // dense; their sum
  std::vector<PooledGradient> pooled;  // and that of these, spread
  const void* y = nullptr;             // the tensor itself, if the output of a ReLU that masks the gradient
  std::vector<ChannelTarget> targets;  // at most kMaxChannelTargets; may be parts, pixel by pixel
  float* sums = nullptr;               // [channels] of the gradient over pixels, in a fixed order; or nullptr
  void* workspace = nullptr;           // JoinWorkspaceBytes(desc), for the sums
};
constexpr size_t kMaxPooledParts = 2;

// Where the one part is the one target and nothing is masked, only its sums are made.
void JoinGradientsCuda(Device& device, GradientJoin join);
size_t JoinWorkspaceBytes(const TensorDesc& desc);

// The same with one dense target `out`, for ops whose y is dense.
void JoinGradientsCuda(Device& device, const std::vector<void*>& parts, const void* y, const TensorDesc& desc,
                       void* out, float* sums = nullptr, void* workspace = nullptr);

}  // namespace deeper
