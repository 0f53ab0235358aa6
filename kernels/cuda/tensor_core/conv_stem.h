// Launches the first convolution with its ReLU and max pool (conv_stem_tiling.h), and the gradients of its
// weights and bias. They check nothing: conv_tensor_core.cpp validates the arguments.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/tensor_core/conv_stem_gradient_tiling.h"
#include "kernels/cuda/tensor_core/conv_stem_tiling.h"

namespace deeper::conv {

struct StemArguments {
  Stem stem;
  const bf16* x = nullptr;        // [pixel][8 channels], of which the last 4 are not read
  const bf16* weights = nullptr;  // [filter][tap][8 channels], likewise
  const bf16* bias = nullptr;     // [filter]; all aligned to 16 bytes
  StemOutput out;
};
// For any GPU of compute capability 8.0 or later.
cudaError_t LaunchStemSm80(const StemArguments& arguments, cudaStream_t stream);

struct StemGradientArguments {
  Stem stem;
  const bf16* x = nullptr;   // as in StemArguments
  StemGradient in;           // aligned to 16 bytes
  float* partial = nullptr;  // StemSplits times kStemSums
  float* dw = nullptr;       // [filter][tap][8 channels], of which the last 4 are set to 0
  float* db = nullptr;       // [filter]
};
cudaError_t LaunchStemGradientSm80(const StemGradientArguments& arguments, cudaStream_t stream);

}  // namespace deeper::conv
