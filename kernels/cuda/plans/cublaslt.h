// The wrapper around cuBLASLt. Only this file uses its API.
//
// Unlike those of cuDNN, its heuristics need a GPU.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/cuda/base/cuda_device.h"
#include "kernels/cuda/plans/cuda_algorithm.h"

namespace deeper::cublaslt {

// The workspace limit of an algorithm: NVIDIA's recommendation for Hopper.
constexpr size_t kMaxWorkspaceBytes = size_t{32} << 20;

// The version of the loaded library: "13.1.0".
std::string Version();

// The GPU of the plans. It must outlive them.
class Target {
 public:
  virtual ~Target() = default;
};
// Uses the calling thread's current GPU.
absl::StatusOr<std::unique_ptr<Target>> MakeTarget();

// Every algorithm gives the same bits every time, on GPUs of one model. Sums, and products of fp32 operands,
// are always in fp32: no TF32.
absl::StatusOr<std::unique_ptr<AlgorithmChoice>> Choose(const Target& target, const MatmulProblem& problem);

}  // namespace deeper::cublaslt
