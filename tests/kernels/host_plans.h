// Naive loops in place of cuDNN, of cuBLASLt and of tensor core kernels: plans that run on host memory, at
// once.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cuda/base/cuda_device.h"

namespace deeper::testing {

// Unimplemented where no GPU has a kernel: x or y is pooled in bf16 only.
absl::StatusOr<std::unique_ptr<CudaPlan>> MakeHostPlan(const ConvolutionProblem& problem);
std::unique_ptr<CudaPlan> MakeHostPlan(const MatmulProblem& problem);

}  // namespace deeper::testing
