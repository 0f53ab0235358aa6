// A simulated GPU with known properties. Ops can be prepared and run on it; it records their launches instead
// of executing them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/base/cuda_device.h"

namespace deeper {

struct PlannedLaunch {
  std::string scope;  // name of the last Annotate before the launch
  Launch launch;
  KernelWork work;
};

// Allocate returns addresses without memory. They cost nothing at any size and must not be accessed. Staging
// memory is real. A convolution gets the workspace of the first plan that cuDNN's heuristics propose, and is
// Unimplemented if no engine can be built. A masked convolution gets the workspace of our kernels, and so
// does a gradient of weights in fp32 if our kernel's expected time is less than the library's. Matrix
// products always get cublaslt::kMaxWorkspaceBytes, since cuBLASLt needs a GPU.
class PlanningDevice : public CudaDevice {
 public:
  // Launches since the last call of Clear.
  const std::vector<PlannedLaunch>& launches() const { return launches_; }
  void Clear() { launches_.clear(); }

 protected:
  PlanningDevice() : CudaDevice(Mode::kPlan) {}
  std::vector<PlannedLaunch> launches_;
};

// device_property_json: cuDNN's description of a GPU (CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION). Errors:
// InvalidArgument if cuDNN cannot read it, Unimplemented if built without CUDA.
absl::StatusOr<std::unique_ptr<PlanningDevice>> MakePlanningDevice(const std::string& device_property_json);

}  // namespace deeper
