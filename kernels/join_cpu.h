// The passes over activations that no library makes well: summing gradients that arrive in parts, masking
// them by a ReLU, and cutting or pasting channels. fp32 or bf16, sums in fp32 in the order of the parts.
#pragma once

#include <vector>

#include "kernels/tensor.h"

namespace deeper {

// out = sum of the parts, and 0 where `y` (the output of a ReLU; nullptr for none) is not positive. All have
// the layout `desc`. out may be one of the parts.
void JoinGradients(const std::vector<void*>& parts, const void* y, const TensorDesc& desc, void* out);

// The same of the channels [first_channel, first_channel + out.c) of the parts and y, all of layout `from`,
// into a dense tensor.
void JoinChannels(const std::vector<void*>& parts, const void* y, const TensorDesc& from,
                  int64_t first_channel, const Tensor& out);

// to[:, first_channel : first_channel + from.c] = from. The last tensor pasted also zeroes the channels that
// pad `to`.
void PasteChannels(const Tensor& from, int64_t first_channel, const Tensor& to);

}  // namespace deeper
