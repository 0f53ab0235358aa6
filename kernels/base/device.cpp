#include "kernels/base/device.h"

namespace deeper {
namespace {

class JustRuns final : public Recording {
 public:
  void Run(const std::function<void()>& work) override { work(); }
};

// Runs on the device's own stream.
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

}  // namespace deeper
