#include "kernels/base/device.h"

#include "kernels/base/clock.h"

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

// Of a device that has done its work when the call that enqueues it returns.
class HostTimer final : public IdleTimer {
 public:
  void Start() override { start_ = deeper::Milliseconds(); }
  void Stop() override { stop_ = deeper::Milliseconds(); }
  double Milliseconds() override { return stop_ - start_; }

 private:
  double start_ = 0, stop_ = 0;
};

}  // namespace

std::unique_ptr<Recording> MakePlainRecording() {
  return std::make_unique<JustRuns>();
}

std::unique_ptr<Recording> Device::MakeRecording() {
  return MakePlainRecording();
}

std::unique_ptr<IdleTimer> Device::MakeIdleTimer() {
  return std::make_unique<HostTimer>();
}

std::unique_ptr<Download> Device::StartDownload(void* to, const void* from, size_t bytes) {
  Copy(to, from, bytes);
  return std::make_unique<DownloadInLine>(*this);
}

}  // namespace deeper
