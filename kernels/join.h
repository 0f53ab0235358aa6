// The passes over activations that no library makes well: summing gradients that arrive in parts, masking
// them by a ReLU, and cutting or pasting channels. fp32 or bf16, sums in fp32 in the order of the parts.
#pragma once

#include <vector>

#include "kernels/device.h"
#include "kernels/tensor.h"

namespace deeper {

constexpr size_t kMaxGradientParts = 8;

// out = sum of the channels [first_channel, first_channel + out.c) of the parts, all of layout `from`, and 0
// where `y` (the output of a ReLU, of layout `from`; nullptr for none) is not positive. `out` is dense and
// overwritten.
void JoinChannels(Device& device, const std::vector<void*>& parts, const void* y, const TensorDesc& from,
                  int64_t first_channel, const Tensor& out);

// to[:, first_channel : first_channel + from.c] = from. The last tensor pasted also zeroes the channels that
// pad `to`.
void PasteChannels(Device& device, const Tensor& from, int64_t first_channel, const Tensor& to);

// Backends.
void JoinChannelsCpu(Device& device, const std::vector<void*>& parts, const void* y, const TensorDesc& from,
                     int64_t first_channel, const Tensor& out);
void PasteChannelsCpu(Device& device, const Tensor& from, int64_t first_channel, const Tensor& to);
void JoinChannelsCuda(Device& device, const std::vector<void*>& parts, const void* y, const TensorDesc& from,
                      int64_t first_channel, const Tensor& out);
void PasteChannelsCuda(Device& device, const Tensor& from, int64_t first_channel, const Tensor& to);

// out = sum of the parts, and 0 where `y` is not positive. All have the layout `desc`. out may be one of the
// parts.
void JoinGradientsCpu(const std::vector<void*>& parts, const void* y, const TensorDesc& desc, void* out);
// The same for kNhwc and vectors, and, unless it is nullptr, bias_gradient[c] = sum of out over all but the
// channels, summed in a fixed order. `workspace`: JoinWorkspaceBytes(desc), for the bias gradient.
void JoinGradientsCuda(Device& device, const std::vector<void*>& parts, const void* y, const TensorDesc& desc,
                       void* out, float* bias_gradient, void* workspace);
size_t JoinWorkspaceBytes(const TensorDesc& desc);

}  // namespace deeper
