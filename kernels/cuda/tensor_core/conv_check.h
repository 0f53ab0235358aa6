// Whether a convolution kernel of our own computes what a library computes. Asked by the tuner, before it may
// use the kernel.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "kernels/base/bf16.h"
#include "kernels/base/buffer.h"
#include "kernels/cuda/base/cuda_device.h"
#include "kernels/cuda/plans/cuda_algorithm.h"

namespace deeper {

class ConvolutionCheck {
 public:
  // What a library computes in place of a problem of ours: nothing masked, of an x that is pooled already and
  // dense, a gradient of weights in bf16.
  static ConvolutionProblem LibraryProblem(const ConvolutionProblem& problem);

  // For a problem in bf16 that our kernels compute. `library` computes LibraryProblem(problem); nullptr:
  // there is none, and nothing passes. They live longer than this.
  ConvolutionCheck(const ConvolutionProblem& problem, AlgorithmChoice* library, Device& device)
      : problem_(problem), library_(library), device_(device) {}

  // Runs the library's first algorithm that runs, once for all checks on the same operands, then `own`, and
  // compares: every element of d, up to the rounding of bf16 and the order of sums; what lies between the
  // pixels of d, which must stay as it was; the sums; every argmax. Maxima for the library are found on the
  // host. Overwrites d, sums and argmax. The message names a difference.
  absl::Status operator()(Algorithm& own, const PlanOperands& operands);

 private:
  absl::Status RunLibrary(PlanOperands operands);
  Buffer Pool(const void* x);
  std::vector<bf16> ReadD(const PlanOperands& operands);
  absl::Status Run(Algorithm& algorithm, PlanOperands operands);

  const ConvolutionProblem problem_;
  AlgorithmChoice* const library_;
  Device& device_;
  std::vector<bf16> expected_;            // before the mask
  std::vector<uint8_t> expected_argmax_;  // of pool_x
};

}  // namespace deeper
