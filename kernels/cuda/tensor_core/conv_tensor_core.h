// Convolutions by tensor core kernels of our own (conv_sm80.cu, conv_sm90.cu, conv_pool_gradient.cu), as
// algorithms beside cuDNN's.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cuda/base/cuda_device.h"
#include "kernels/cuda/plans/cuda_algorithm.h"
#include "kernels/cuda/tensor_core/conv_tiling.h"

namespace deeper::tensor_core {

// The kernels that a GPU of that compute capability, 80 or 90, can run: one algorithm for each size of tile,
// with the least padding first. They give the same bits every time, and want operands
// aligned to 16 bytes; the sums of a masked dx are those of its elements as stored. Unimplemented, with the
// reason: all but bf16, forward and backward data, stride 1, odd filters with the padding that keeps the
// size, channels and pitches that are multiples of 8; with pool_x, forward and backward weights of 1x1.
absl::StatusOr<std::unique_ptr<AlgorithmChoice>> Choose(int compute_capability,
                                                        const ConvolutionProblem& problem);

// The problem as the kernels see it; for gradients of weights, as the forward convolution.
conv::Gemm GemmOf(const ConvolutionProblem& problem);

}  // namespace deeper::tensor_core
