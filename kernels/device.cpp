#include "kernels/device.h"

#include "kernels/planning_device.h"

namespace deeper {
namespace {

class JustRuns final : public Recording {
 public:
  void Run(const std::function<void()>& work) override { work(); }
};

}  // namespace

std::unique_ptr<Recording> Device::MakeRecording() {
  return std::make_unique<JustRuns>();
}

#ifndef DEEPER_CUDA
constexpr char kBuiltWithoutCuda[] =
    "--device=cuda: this program was built without CUDA; use --device=cpu, or build the preset cuda-release";

absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(const CudaOptions&) {
  return absl::UnimplementedError(kBuiltWithoutCuda);
}
absl::StatusOr<std::unique_ptr<PlanningDevice>> MakePlanningDevice(const std::string&) {
  return absl::UnimplementedError(kBuiltWithoutCuda);
}
#endif

}  // namespace deeper
