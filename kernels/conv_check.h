// Whether a convolution kernel of our own computes what a library computes. Asked by the tuner, before it may
// use the kernel.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "kernels/bf16.h"
#include "kernels/cuda_algorithm.h"
#include "kernels/cuda_device.h"

namespace deeper {

class ConvolutionCheck {
 public:
  // For a problem in bf16, forward or backward data. `library` computes it without mask_dx, which no library
  // knows; nullptr: there is none, and nothing passes. They live longer than this.
  ConvolutionCheck(const ConvolutionProblem& problem, AlgorithmChoice* library, Device& device)
      : problem_(problem), library_(library), device_(device) {}

  // Runs the library's first algorithm that runs, once for all checks on the same operands, then `own`, and
  // compares: every element of d, up to the rounding of bf16 and the order of sums; what lies between the
  // pixels of d, which must stay as it was; the sums. Overwrites d and sums. The message names a
  // difference.
  absl::Status operator()(Algorithm& own, const PlanOperands& operands);

 private:
  absl::Status RunLibrary(const PlanOperands& operands);
  absl::Status Run(Algorithm& algorithm, PlanOperands operands);

  const ConvolutionProblem problem_;
  AlgorithmChoice* const library_;
  Device& device_;
  std::vector<bf16> expected_;  // before the mask
};

}  // namespace deeper
