#include "kernels/cuda/planning_device.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status.h"
#include "kernels/cuda/base/early_start.h"
#include "kernels/cuda/plans/autotune.h"
#include "kernels/cuda/plans/cublaslt.h"
#include "kernels/cuda/plans/cuda_problem.h"
#include "kernels/cuda/plans/cudnn.h"
#include "kernels/cuda/plans/widened.h"
#include "kernels/cuda/tensor_core/conv_tensor_core.h"

namespace deeper {
namespace {

constexpr uintptr_t kFirstAddress = uintptr_t{1} << 40;
constexpr uintptr_t kGuard = 4096;  // gap between allocations, and their alignment

// The products that a GPU computes in the time in which it copies a byte, and in that from one kernel to the
// next, roughly. Only the choice between deeper's kernels and the library's depends on it.
constexpr int64_t kMacsPerByte = 60, kMacsPerKernel = 300'000'000;

// What a plan launches, and its workspace.
struct Call {
  struct Kernels {
    Launch launch;
    KernelWork work = {};
  };
  std::vector<Kernels> launches;
  size_t workspace_bytes = 0;

  // In products.
  int64_t Time() const {
    int64_t time = 0;
    for (const auto& [launch, work] : launches) {
      time += std::max({launch.macs, work.macs, kMacsPerByte * launch.bytes}) +
              kMacsPerByte * 2 * work.partial_bytes + kMacsPerKernel * work.kernels;
    }
    return time;
  }
};

class PlannedCall final : public CudaPlan {
 public:
  PlannedCall(CudaDevice& device, Call call) : device_(device), call_(std::move(call)) {
    workspace_bytes_ = call_.workspace_bytes;
  }
  void Run(const PlanOperands&) override {
    for (const auto& [launch, work] : call_.launches) {
      device_.Expect(work);
      device_.Begin(launch);
    }
  }

 private:
  CudaDevice& device_;
  const Call call_;
};

class DevicelessGpu final : public PlanningDevice {
 public:
  DevicelessGpu(std::string description, int compute_capability, size_t memory_bytes,
                std::unique_ptr<cudnn::Target> target)
      : description_(std::move(description)),
        compute_capability_(compute_capability),
        memory_bytes_(memory_bytes),
        target_(std::move(target)) {}

  std::string Describe() const override { return description_; }
  Buffer Allocate(size_t bytes) override {
    if (bytes == 0) return {};
    void* const data = reinterpret_cast<void*>(next_address_);
    next_address_ += (bytes + 2 * kGuard - 1) / kGuard * kGuard;
    return Buffer(data, bytes, [](void*, size_t) {});
  }
  size_t AvailableBytes() const override { return memory_bytes_; }
  Stream stream() const override { return {}; }
  void Synchronize() override {}
  void Copy(void*, const void*, size_t) override { follows_own_[branch_] = false; }
  void Fork() override { follows_own_[1] = follows_own_[2] = false; }
  void Branch(int index) override { branch_ = index; }
  void Join() override {
    branch_ = 0;
    follows_own_[0] = false;
  }
  void Annotate(const std::string& name) override { scope_ = name; }

  bool Begin(const Launch& launch) override {
    KernelWork work = std::exchange(work_, {});
    const bool own = work.warps > 0, follows_own = std::exchange(follows_own_[branch_], own);
    if (own && compute_capability_ >= kFirstWithEarlyStarts)
      work.early = work.kernels - (follows_own ? 0 : 1);
    launches_.push_back({scope_, launch, work});
    return false;
  }
  void Expect(const KernelWork& work) override { work_ = work; }
  void End() override {}

  absl::StatusOr<std::unique_ptr<CudaPlan>> Plan(const ConvolutionProblem& problem) override {
    const auto [entry, is_new] = calls_.try_emplace(ToString(problem), Call{});
    if (is_new) entry->second = FirstCall(problem);
    ASSIGN_OR_RETURN(const Call call, entry->second);
    return std::make_unique<PlannedCall>(*this, call);
  }
  absl::StatusOr<std::unique_ptr<CudaPlan>> Plan(const MatmulProblem& problem) override {
    return std::make_unique<PlannedCall>(*this, Call{{{LaunchOf(problem)}}, cublaslt::kMaxWorkspaceBytes});
  }

 private:
  absl::StatusOr<Call> FirstCall(const ConvolutionProblem& problem) const {
    if (problem.mask_dx || problem.pool_x || problem.pool_y) return OwnCall(problem);
    absl::StatusOr<Call> library = LibraryCall(problem);
    if (!problem.wide_dw) return library;
    absl::StatusOr<Call> own = OwnCall(problem);
    return own.ok() && (!library.ok() || own->Time() < library->Time()) ? own : library;
  }

  absl::StatusOr<Call> OwnCall(const ConvolutionProblem& problem) const {
    const auto choice = tensor_core::Choose(compute_capability_, problem);
    RETURN_IF_ERROR(choice.status());
    ASSIGN_OR_RETURN(const auto algorithm, ChooseFirst(**choice));
    return Call{{{LaunchOf(problem), algorithm->ExpectedWork()}}, algorithm->workspace_bytes()};
  }

  absl::StatusOr<Call> LibraryCall(const ConvolutionProblem& problem) const {
    const ConvolutionProblem narrow = NarrowProblem(problem);
    const auto choice = cudnn::Choose(*target_, narrow, /*deterministic=*/false);
    RETURN_IF_ERROR(choice.status());
    ASSIGN_OR_RETURN(const auto algorithm, ChooseFirst(**choice));
    Call call = {{}, algorithm->workspace_bytes()};
    // With this workspace, cuDNN first copies a slice of the channels there.
    const size_t copy =
        static_cast<size_t>(problem.n * problem.h * problem.w * problem.c) * SizeOf(problem.dtype);
    const bool reads_slice =
        problem.pass == ConvolutionProblem::Pass::kBackwardWeights && problem.PitchOfX() > problem.c;
    if (reads_slice && call.workspace_bytes >= copy)
      call.launches.push_back({{"copy of a slice", 2 * static_cast<int64_t>(copy)}});
    call.launches.push_back({LaunchOf(narrow)});
    if (problem.wide_dw) {
      const int64_t count = problem.k * problem.kernel * problem.kernel * problem.c;
      call.launches.push_back({WidenLaunch(count), WidenWork(count)});
      call.workspace_bytes = WidenedWorkspace(call.workspace_bytes, count);
    }
    return call;
  }

  const std::string description_;
  const int compute_capability_;  // 90
  const size_t memory_bytes_;
  const std::unique_ptr<cudnn::Target> target_;
  std::map<std::string, absl::StatusOr<Call>> calls_;  // by problem
  uintptr_t next_address_ = kFirstAddress;
  std::string scope_;
  KernelWork work_;  // of the next launch
  int branch_ = 0;
  bool follows_own_[kBranches] = {};  // whether the last node of the branch is a kernel of deeper
};

}  // namespace

absl::StatusOr<std::unique_ptr<PlanningDevice>> MakePlanningDevice(const std::string& device_property_json) {
  ASSIGN_OR_RETURN(auto target, cudnn::MakeDevicelessTarget(device_property_json));
  const auto json = nlohmann::json::parse(device_property_json, nullptr, /*allow_exceptions=*/false);
  const auto number = [&json](const char* name) {
    const auto found = json.find(name);
    return found != json.end() && found->is_number_integer() ? found->get<int64_t>() : 0;
  };
  const auto name = json.find("deviceName");
  const int64_t version = number("deviceVer");  // 900
  const std::string description =
      absl::StrCat(name != json.end() && name->is_string() ? name->get<std::string>() : "GPU", ", ",
                   number("multiProcessorCount"), " SMs, compute capability ", version / 100, ".",
                   version / 10 % 10, ", cuDNN ", cudnn::Version(), ", planned");
  return std::make_unique<DevicelessGpu>(description, static_cast<int>(version / 10),
                                         static_cast<size_t>(number("totalGlobalMem")), std::move(target));
}

}  // namespace deeper
