// Checks whether a custom convolution kernel computes the same result as a library. The tuner runs this check
// before it uses the kernel.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/base/bf16.h"
#include "kernels/base/buffer.h"
#include "kernels/cuda/base/cuda_device.h"
#include "kernels/cuda/plans/cuda_algorithm.h"
#include "kernels/cuda/plans/plan_cache.h"

namespace deeper {

class ConvolutionCheck {
 public:
  // The problem that a library computes for the comparison: without mask, with a dense x that is already
  // pooled, with the y before its pool, and weight gradients in bf16.
  static ConvolutionProblem LibraryProblem(const ConvolutionProblem& problem);

  // For a bf16 problem that our kernels support. `library` computes LibraryProblem(problem); with nullptr
  // every check fails. `trials` records the runs of our kernels. All must outlive this object. A kernel that
  // runs longer than `limit` ends the process (kernels/base/trial.h); the comparison, on the host, is neither
  // limited nor on record.
  ConvolutionCheck(const ConvolutionProblem& problem, AlgorithmChoice* library, Device& device,
                   std::chrono::milliseconds limit, const PlanCache& trials)
      : problem_(problem), library_(library), device_(device), limit_(limit), trials_(trials) {}

  // Runs the library's first working algorithm, once for all checks on the same operands, and `own`. Compares
  // every element of d, up to bf16 rounding and the order of sums; the sums; and every argmax. Of pool_y, an
  // argmax must be a place where the library has the maximum, up to rounding. The memory between the pixels
  // of d must not change. The host finds the maxima for the library. Overwrites d, sums and argmax. The
  // message names a difference.
  absl::Status operator()(Algorithm& own, PlanOperands operands);

 private:
  absl::Status RunLibrary(PlanOperands operands);
  Buffer Pool(const void* x);
  void PoolY();
  absl::StatusOr<Buffer> SpreadY(const PlanOperands& operands);
  absl::Status CheckPlaces(const std::vector<bf16>& y, const std::vector<uint8_t>& places) const;
  absl::Status ClearUnread(PlanOperands& operands);
  absl::StatusOr<Buffer> Upload(const std::vector<bf16>& values);
  std::vector<bf16> ReadD(const PlanOperands& operands);
  absl::Status Run(Algorithm& algorithm, PlanOperands operands);
  absl::Status RunOnRecord(Algorithm& own, const PlanOperands& operands);

  const ConvolutionProblem problem_;
  AlgorithmChoice* const library_;
  Device& device_;
  const std::chrono::milliseconds limit_;
  const PlanCache& trials_;
  std::vector<bf16> expected_;            // before the mask
  std::vector<uint8_t> expected_argmax_;  // of pool_x; of pool_y backward, what is given
  std::vector<bf16> convolved_;           // of pool_y: the library's result, or its dy
  Buffer x_, w_;                          // of pool_y: with zeros in the channels that must be zeros
};

}  // namespace deeper
