// Replaces the CUDA devices in a build without CUDA.
#include "kernels/base/own_kernels.h"
#include "kernels/base/status.h"
#include "kernels/cuda/planning_device.h"

namespace deeper {

constexpr char kBuiltWithoutCuda[] =
    "--device=cuda: this program was built without CUDA; use --device=cpu, or build the preset cuda-release";

absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(const CudaOptions&) {
  return Unimplemented(kBuiltWithoutCuda);
}
absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(const CudaOptions&, const TrialOptions&) {
  return Unimplemented(kBuiltWithoutCuda);
}
absl::StatusOr<std::unique_ptr<PlanningDevice>> MakePlanningDevice(const std::string&) {
  return Unimplemented(kBuiltWithoutCuda);
}

}  // namespace deeper
