// Gradients of weights in fp32 from a library that writes them in bf16.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/base/bf16.h"
#include "kernels/cuda/plans/cuda_algorithm.h"

namespace deeper {

// The problem with dw in bf16, as libraries compute it.
ConvolutionProblem NarrowProblem(const ConvolutionProblem& problem);

// The algorithms of `narrow`, which computes NarrowProblem(problem), each followed by a kernel that widens
// dw, unless it is fp32 already. Their texts are those of `narrow`. Passes its error on.
absl::StatusOr<std::unique_ptr<AlgorithmChoice>> Widened(
    const ConvolutionProblem& problem, absl::StatusOr<std::unique_ptr<AlgorithmChoice>> narrow);

// The workspace of such an algorithm: the first one's, and dw in bf16.
size_t WidenedWorkspace(size_t narrow_bytes, int64_t count);

// The second kernel: to[i] = from[i].
Launch WidenLaunch(int64_t count);
KernelWork WidenWork(int64_t count);
void Widen(const bf16* from, float* to, int64_t count, cudaStream_t stream);

// Whether this program has code of this kernel for the current GPU (FindForEachCode), and so of all that are
// built for CMAKE_CUDA_ARCHITECTURES: all but those of conv_sm90.cu and conv_dw_sm90.cu.
cudaError_t FindKernelCode();

}  // namespace deeper
