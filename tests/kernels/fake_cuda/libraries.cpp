// In place of cuDNN's door (cudnn.h), of cuBLASLt's and of the tensor core kernels': naive loops, in two
// launches. The first leaves a mark in the workspace, the second wants to find it: a workspace that two plans
// use at a time shows.
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status.h"
#include "kernels/cuda/plans/cublaslt.h"
#include "kernels/cuda/plans/cudnn.h"
#include "kernels/cuda/tensor_core/conv_tensor_core.h"
#include "tests/kernels/fake_cuda/fake_cuda.h"
#include "tests/kernels/fake_cuda/memory.h"
#include "tests/kernels/host_plans.h"

namespace deeper {
namespace {

// Ours, in fp32, are what no GPU has: the host runs them, too (host_plans.h), and is what bits are compared
// with.
enum class Origin { kLibrary, kOwn, kOwnChecked };

std::string NameOf(Origin origin) {
  return origin == Origin::kLibrary ? "naive" : "own";
}

class NaiveAlgorithm final : public Algorithm {
 public:
  NaiveAlgorithm(std::string name, std::shared_ptr<CudaPlan> plan, Origin origin)
      : name_(std::move(name)), plan_(std::move(plan)), origin_(origin) {
    workspace_bytes_ = is_own() ? 0 : 1024;
  }

  bool needs_check() const override { return origin_ == Origin::kOwnChecked; }
  absl::StatusOr<std::string> Serialize() const override { return NameOf(origin_); }

  absl::Status Enqueue(const PlanOperands& operands, Stream stream) override {
    const auto queue = static_cast<cudaStream_t>(stream.native);
    auto* const mark = static_cast<uint64_t*>(operands.workspace);
    static std::atomic<uint64_t> last_mark = 0;
    const uint64_t number = ++last_mark;
    if (!is_own()) {
      const cudaError_t error =
          fake_cuda::Launch(queue, absl::StrCat(name_, " (first half)"), [=] { *mark = number; });
      if (error != cudaSuccess) return Internal(name_, ": ", cudaGetErrorName(error));
    }
    const cudaError_t error =
        fake_cuda::Launch(queue, name_, [=, name = name_, plan = plan_, own = is_own()] {
          if (!own && *mark != number)
            fake_cuda::Fail(absl::StrCat(name, ": something else wrote to its workspace"));
          plan->Run(operands);
        });
    if (error != cudaSuccess) return Internal(name_, ": ", cudaGetErrorName(error));
    return absl::OkStatus();
  }

 private:
  bool is_own() const { return origin_ != Origin::kLibrary; }

  const std::string name_;
  const std::shared_ptr<CudaPlan> plan_;
  const Origin origin_;
};

// One algorithm.
class NaiveChoice final : public AlgorithmChoice {
 public:
  NaiveChoice(std::string name, std::shared_ptr<CudaPlan> plan, Origin origin)
      : name_(std::move(name)), plan_(std::move(plan)), origin_(origin) {}

  absl::Status Ask() override { return absl::OkStatus(); }
  size_t size() const override { return 1; }
  absl::StatusOr<std::unique_ptr<Algorithm>> Build(size_t) const override {
    return std::make_unique<NaiveAlgorithm>(name_, plan_, origin_);
  }
  absl::StatusOr<std::unique_ptr<Algorithm>> Load(const std::string& serialized) const override {
    if (serialized != NameOf(origin_)) return InvalidArgument("not this library's");
    return Build(0);
  }

 private:
  const std::string name_;
  const std::shared_ptr<CudaPlan> plan_;
  const Origin origin_;
};

}  // namespace

namespace cudnn {

std::string Version() {
  return "fake";
}
absl::StatusOr<std::unique_ptr<Target>> MakeGpuTarget() {
  return std::make_unique<Target>();
}
absl::StatusOr<std::unique_ptr<Target>> MakeDevicelessTarget(const std::string&) {
  return Unimplemented("the fake CUDA plans for no GPU");
}
absl::StatusOr<std::unique_ptr<AlgorithmChoice>> Choose(const Target&, const ConvolutionProblem& problem,
                                                        bool) {
  if (problem.mask_dx || problem.pool_x) return Named(Unimplemented("as with cuDNN"), problem);
  ASSIGN_OR_RETURN(auto plan, testing::MakeHostPlan(problem));
  return std::make_unique<NaiveChoice>(ToString(problem), std::move(plan), Origin::kLibrary);
}

}  // namespace cudnn

namespace cublaslt {

std::string Version() {
  return "fake";
}
absl::StatusOr<std::unique_ptr<Target>> MakeTarget() {
  return std::make_unique<Target>();
}
absl::StatusOr<std::unique_ptr<AlgorithmChoice>> Choose(const Target&, const MatmulProblem& problem) {
  return std::make_unique<NaiveChoice>(ToString(problem), testing::MakeHostPlan(problem), Origin::kLibrary);
}

}  // namespace cublaslt

namespace tensor_core {

absl::StatusOr<std::unique_ptr<AlgorithmChoice>> Choose(int, const ConvolutionProblem& problem) {
  if (!problem.mask_dx && !problem.pool_x) return Named(Unimplemented("left to cuDNN"), problem);
  ASSIGN_OR_RETURN(auto plan, testing::MakeHostPlan(problem));
  const Origin origin = problem.dtype == DType::kBf16 ? Origin::kOwnChecked : Origin::kOwn;
  return std::make_unique<NaiveChoice>(ToString(problem), std::move(plan), origin);
}

}  // namespace tensor_core
}  // namespace deeper
