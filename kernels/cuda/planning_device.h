// A GPU that is not there, and of which only the properties are known: ops can be prepared and "run" on it,
// and what they would launch is written down.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/base/cuda_device.h"

namespace deeper {

struct PlannedLaunch {
  std::string scope;  // the device's Annotate before it
  Launch launch;
};

// Memory from Allocate has addresses and nothing else: it costs nothing, whatever its size, and nobody may
// touch it. Staging memory is real. Convolutions get the workspace of the plan that cuDNN's heuristics like
// best, and are Unimplemented where no engine can be built; masked ones that of our own kernels; matrix
// products always get cublaslt::kMaxWorkspaceBytes, since cuBLASLt tells nothing without a GPU.
class PlanningDevice : public CudaDevice {
 public:
  // Since the last call of Clear.
  const std::vector<PlannedLaunch>& launches() const { return launches_; }
  void Clear() { launches_.clear(); }

 protected:
  PlanningDevice() : CudaDevice(Mode::kPlan) {}
  std::vector<PlannedLaunch> launches_;
};

// device_property_json: what cuDNN writes about a GPU (CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION).
// InvalidArgument if cuDNN cannot read it. Unimplemented: built without CUDA.
absl::StatusOr<std::unique_ptr<PlanningDevice>> MakePlanningDevice(const std::string& device_property_json);

}  // namespace deeper
