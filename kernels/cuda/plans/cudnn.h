// The wrapper around cuDNN. Only cudnn.cpp uses its backend API (cudnn_descriptor.h).
//
// A convolution is described to cuDNN as a graph of operations. cuDNN's heuristics return engine
// configurations, and each can be built into an execution plan. A GPU that is described by its properties is
// sufficient. Its plans show which engines exist and how much workspace they need, but cannot run.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/cuda/base/cuda_device.h"
#include "kernels/cuda/plans/cuda_algorithm.h"

namespace deeper::cudnn {

// The version of the loaded library: "9.19", or "9.19.1".
std::string Version();

// The GPU of the plans. It must outlive them.
class Target {
 public:
  virtual ~Target() = default;
};
// Uses the calling thread's current GPU.
absl::StatusOr<std::unique_ptr<Target>> MakeGpuTarget();
// Uses a described GPU: cuDNN's JSON about a GPU. InvalidArgument if cuDNN cannot read it.
absl::StatusOr<std::unique_ptr<Target>> MakeDevicelessTarget(const std::string& device_property_json);

// The properties of the calling thread's current GPU, in the form of MakeDevicelessTarget.
absl::StatusOr<std::string> DeviceProperties();

// With `deterministic`, uses only engines that always give the same bits. Sums, and products of fp32
// operands, are always in fp32: no TF32.
absl::StatusOr<std::unique_ptr<AlgorithmChoice>> Choose(const Target& target,
                                                        const ConvolutionProblem& problem,
                                                        bool deterministic);

}  // namespace deeper::cudnn
