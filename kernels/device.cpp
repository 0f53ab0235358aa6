#include "kernels/device.h"

#include "kernels/planning_device.h"

namespace deeper {
namespace {

class JustRuns final : public Recording {
 public:
  void Run(const std::function<void()>& work) override { work(); }
};

// On the device's own stream.
class DownloadInLine final : public Download {
 public:
  explicit DownloadInLine(Device& device) : device_(device) {}
  void Wait() override { device_.Synchronize(); }

 private:
  Device& device_;
};

}  // namespace

std::unique_ptr<Recording> MakePlainRecording() {
  return std::make_unique<JustRuns>();
}

std::unique_ptr<Recording> Device::MakeRecording() {
  return MakePlainRecording();
}

std::unique_ptr<Download> Device::StartDownload(void* to, const void* from, size_t bytes) {
  Copy(to, from, bytes);
  return std::make_unique<DownloadInLine>(*this);
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
