// cuBLASLt behind one door: the only file that knows its API.
//
// Its heuristics, unlike cuDNN's, need a GPU.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/cuda/base/cuda_device.h"
#include "kernels/cuda/plans/cuda_algorithm.h"

namespace deeper::cublaslt {

// That an algorithm may want: NVIDIA's advice for Hopper.
constexpr size_t kMaxWorkspaceBytes = size_t{32} << 20;

// Of the library that is loaded: "13.1.0".
std::string Version();

// The GPU that plans are made for; lives longer than they.
class Target {
 public:
  virtual ~Target() = default;
};
// The calling thread's current GPU.
absl::StatusOr<std::unique_ptr<Target>> MakeTarget();

// Every algorithm gives the same bits every time, on GPUs of one model. Sums are in fp32 always, and products
// of fp32 operands too: no TF32.
absl::StatusOr<std::unique_ptr<AlgorithmChoice>> Choose(const Target& target, const MatmulProblem& problem);

}  // namespace deeper::cublaslt
