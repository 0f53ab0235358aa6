// cuDNN behind one door: only cudnn.cpp knows its backend API (cudnn_descriptor.h).
//
// A convolution is described to cuDNN as a graph of operations; its heuristics answer with configurations of
// engines, and any of them can be built into an execution plan. All of this works without a GPU too, for one
// that is described by its properties: such plans tell what exists and how much workspace it wants, and
// cannot run.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/cuda/base/cuda_device.h"
#include "kernels/cuda/plans/cuda_algorithm.h"

namespace deeper::cudnn {

// Of the library that is loaded: "9.19", or "9.19.1".
std::string Version();

// The GPU that plans are made for; lives longer than they.
class Target {
 public:
  virtual ~Target() = default;
};
// The calling thread's current GPU.
absl::StatusOr<std::unique_ptr<Target>> MakeGpuTarget();
// One that need not be there: what cuDNN writes about a GPU as JSON. InvalidArgument if it cannot read it.
absl::StatusOr<std::unique_ptr<Target>> MakeDevicelessTarget(const std::string& device_property_json);

// With `deterministic`, only engines that give the same bits every time. Sums are in fp32 always, and
// products of fp32 operands too: no TF32.
absl::StatusOr<std::unique_ptr<AlgorithmChoice>> Choose(const Target& target,
                                                        const ConvolutionProblem& problem,
                                                        bool deterministic);

}  // namespace deeper::cudnn
