#include <cstring>

#include "kernels/base/buffer.h"
#include "kernels/cuda/base/cuda_device.h"
#include "tests/kernels/host_plans.h"
#include "tests/kernels/test_device.h"

namespace deeper::testing {
namespace {

class HostCudaDevice final : public CudaDevice {
 public:
  HostCudaDevice() : CudaDevice(Mode::kHost) {}

  std::string Describe() const override { return "CUDA ops on the host"; }
  Buffer Allocate(size_t bytes) override { return AllocateHost(bytes); }
  size_t AvailableBytes() const override { return size_t{1} << 40; }
  Stream stream() const override { return {}; }
  void Synchronize() override {}
  void Copy(void* to, const void* from, size_t bytes) override {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
  bool Begin(const Launch&) override { return true; }
  void End() override {}
  absl::StatusOr<std::unique_ptr<CudaPlan>> Plan(const ConvolutionProblem& problem) override {
    return MakeHostPlan(problem);
  }
  absl::StatusOr<std::unique_ptr<CudaPlan>> Plan(const MatmulProblem& problem) override {
    return MakeHostPlan(problem);
  }
};

}  // namespace

std::unique_ptr<Device> MakeHostCudaDevice() {
  return std::make_unique<HostCudaDevice>();
}

}  // namespace deeper::testing
