// Convolutions by custom tensor core kernels (conv_sm80.cu, conv_sm90.cu, conv_pool_gradient.cu,
// conv_stem.cu), which complement cuDNN's algorithms.
#pragma once

#include <memory>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/cuda/base/cuda_device.h"
#include "kernels/cuda/plans/cuda_algorithm.h"
#include "kernels/cuda/tensor_core/conv_tiling.h"

namespace deeper::tensor_core {

// The kernels for a GPU of compute capability 80 or 90: one algorithm per tile size, with the least padding
// first. They always give the same bits and need operands aligned to 16 bytes. The sums of a masked dx are
// those of its stored elements. They support bf16, forward and backward data, stride 1, odd filters with
// "same" padding, and channels and pitches that are multiples of 8; with pool_x, forward and backward weights
// of 1x1; with pool_y, 64 filters 7x7 of stride 2. Otherwise Unimplemented, with the reason. `excluded`:
// names that Algorithm::Serialize returns.
absl::StatusOr<std::unique_ptr<AlgorithmChoice>> Choose(int compute_capability,
                                                        const ConvolutionProblem& problem,
                                                        const std::set<std::string>& excluded = {});

// Differs between builds whose kernels differ.
std::string Version();

// The problem in the form of the kernels; for gradients of weights, the forward convolution.
conv::Gemm GemmOf(const ConvolutionProblem& problem);

}  // namespace deeper::tensor_core
