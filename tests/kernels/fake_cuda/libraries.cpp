// In place of deeper's tensor core kernels (conv_tensor_core.h): naive loops.
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status.h"
#include "kernels/cuda/tensor_core/conv_tensor_core.h"
#include "tests/kernels/fake_cuda/fake_cuda.h"
#include "tests/kernels/host_plans.h"

namespace deeper {
namespace {

// Ours, in fp32, are what no GPU has: the host runs them, too (host_plans.h), and is what bits are compared
// with.
std::string NameOf(DType dtype, int capability) {
  return absl::StrCat(dtype == DType::kBf16 ? "own checked sm" : "own sm", capability);
}

// What a kernel with a mistake does in place of the end of its work.
void Err(void* result) {
  switch (fake_cuda::OwnKernelsAre()) {
    case fake_cuda::OwnKernels::kRight:
      return;
    case fake_cuda::OwnKernels::kWrong:
      *static_cast<uint32_t*>(result) ^= 0x40004000;  // bf16 or fp32
      return;
    case fake_cuda::OwnKernels::kFault:
      return fake_cuda::Lose(cudaErrorIllegalAddress);
    case fake_cuda::OwnKernels::kHang:
      while (true) pause();
  }
}

class OwnAlgorithm final : public Algorithm {
 public:
  OwnAlgorithm(std::string name, std::shared_ptr<CudaPlan> plan, DType dtype, int capability)
      : name_(std::move(name)), plan_(std::move(plan)), dtype_(dtype), capability_(capability) {}

  bool needs_check() const override { return dtype_ == DType::kBf16; }
  absl::StatusOr<std::string> Serialize() const override { return NameOf(dtype_, capability_); }

  absl::Status Enqueue(const PlanOperands& operands, Stream stream) override {
    const cudaError_t error = fake_cuda::LaunchOwn(static_cast<cudaStream_t>(stream.native), name_,
                                                   [=, plan = plan_, erring = needs_check()] {
                                                     plan->Run(operands);
                                                     if (erring) Err(operands.d);
                                                   });
    if (error != cudaSuccess) return Internal(name_, ": ", cudaGetErrorName(error));
    return absl::OkStatus();
  }

 private:
  const std::string name_;
  const std::shared_ptr<CudaPlan> plan_;
  const DType dtype_;
  const int capability_;
};

// One algorithm.
class OwnChoice final : public AlgorithmChoice {
 public:
  OwnChoice(std::string name, std::shared_ptr<CudaPlan> plan, DType dtype, int capability)
      : name_(std::move(name)), plan_(std::move(plan)), dtype_(dtype), capability_(capability) {}

  absl::Status Ask() override { return absl::OkStatus(); }
  size_t size() const override { return 1; }
  absl::StatusOr<std::unique_ptr<Algorithm>> Build(size_t) const override {
    return std::make_unique<OwnAlgorithm>(name_, plan_, dtype_, capability_);
  }
  absl::StatusOr<std::unique_ptr<Algorithm>> Load(const std::string& serialized) const override {
    if (serialized != NameOf(dtype_, capability_)) return InvalidArgument("not this library's");
    return Build(0);
  }

 private:
  const std::string name_;
  const std::shared_ptr<CudaPlan> plan_;
  const DType dtype_;
  const int capability_;
};

}  // namespace

namespace tensor_core {

std::string Version() {
  return "fake";
}

absl::StatusOr<std::unique_ptr<AlgorithmChoice>> Choose(int capability, const ConvolutionProblem& problem,
                                                        const std::set<std::string>& excluded) {
  if (!problem.mask_dx && !problem.pool_x && !problem.pool_y && !problem.wide_dw)
    return Named(Unimplemented("left to cuDNN"), problem);
  ASSIGN_OR_RETURN(auto plan, testing::MakeHostPlan(problem));
  if (excluded.contains(NameOf(problem.dtype, capability))) return Named(Unimplemented("excluded"), problem);
  return std::make_unique<OwnChoice>(ToString(problem), std::move(plan), problem.dtype, capability);
}

}  // namespace tensor_core
}  // namespace deeper
