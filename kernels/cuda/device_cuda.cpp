// A GPU as a device. It has one stream for work and one each for uploads and downloads. It tunes library
// algorithms per problem and replays recordings as CUDA graphs.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/base/affinity.h"
#include "kernels/base/cuda_check.h"
#include "kernels/base/own_kernels.h"
#include "kernels/base/status.h"
#include "kernels/base/trace.h"
#include "kernels/cuda/base/cuda_device.h"
#include "kernels/cuda/base/early_start.h"
#include "kernels/cuda/base/stream_timer.h"
#include "kernels/cuda/plans/autotune.h"
#include "kernels/cuda/plans/cublaslt.h"
#include "kernels/cuda/plans/cuda_algorithm.h"
#include "kernels/cuda/plans/cudnn.h"
#include "kernels/cuda/plans/plan_cache.h"
#include "kernels/cuda/plans/widened.h"
#include "kernels/cuda/tensor_core/conv_check.h"
#include "kernels/cuda/tensor_core/conv_tensor_core.h"

namespace deeper {
namespace {

// The lowest major compute capability with bf16 tensor cores, and with code in this build.
constexpr int kLeastMajor = 8;
// Heuristics propose about 50 algorithms in a good order. The best one is among the first two dozen.
constexpr int kContenders = 24;

std::string ToString(cudaError_t error) {
  return absl::StrCat(cudaGetErrorName(error), ": ", cudaGetErrorString(error));
}

std::string CudaVersion(int version) {  // 13000
  return absl::StrCat(version / 1000, ".", version / 10 % 100);
}

struct Gpu {
  cudaDeviceProp properties = {};
  std::string address, uuid;
  int driver = 0;  // the newest version of CUDA that the driver supports

  // The properties that a tuned plan depends on.
  std::string Environment(bool deterministic) const {
    return absl::StrCat(Model(), ", driver for CUDA ", CudaVersion(driver), ", cuDNN ", cudnn::Version(),
                        ", cuBLASLt ", cublaslt::Version(), ", kernels ", tensor_core::Version(),
                        deterministic ? ", deterministic" : "");
  }
  std::string Describe() const {
    return absl::StrCat(Model(), ", CUDA ", CudaVersion(CUDART_VERSION), ", cuDNN ", cudnn::Version());
  }

 private:
  std::string Model() const {
    return absl::StrCat(properties.name, ", ", properties.multiProcessorCount, " SMs, compute capability ",
                        properties.major, ".", properties.minor);
  }
};

class GpuDownload final : public Download {
 public:
  GpuDownload(void* to, const void* from, size_t bytes, cudaStream_t stream) {
    DEEPER_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream));
    DEEPER_CUDA_CHECK(cudaEventRecord(arrived_.get(), stream));
  }
  void Wait() override { DEEPER_CUDA_CHECK(cudaEventSynchronize(arrived_.get())); }

 private:
  const CudaEvent arrived_ = MakeCudaEvent();
};

class GpuDevice final : public CudaDevice {
 public:
  GpuDevice(const Gpu& gpu, const CudaOptions& options, const TrialOptions& trials)
      : CudaDevice(Mode::kGpu),
        options_(options),
        trials_(trials),
        description_(gpu.Describe()),
        address_(gpu.address),
        uuid_(gpu.uuid),
        compute_capability_(gpu.properties.major * 10 + gpu.properties.minor),
        driver_(gpu.driver),
        plans_(options.plan_cache, gpu.Environment(options.deterministic)) {}
  Bf16Support bf16_support() const override {
    return compute_capability_ >= 80 ? Bf16Support::kNative : Bf16Support::kEmulated;
  }
  ~GpuDevice() override {
    cudaStreamSynchronize(uploads_.get());
    cudaStreamSynchronize(downloads_.get());
    cudaStreamSynchronize(stream_.get());
  }

  absl::Status Init() {
    ASSIGN_OR_RETURN(convolutions_, cudnn::MakeGpuTarget());
    ASSIGN_OR_RETURN(matmuls_, cublaslt::MakeTarget());
    for (const PlanCache::FailedTrial& trial : plans_.FailedTrials()) {
      if (!excluded_.insert(trial.algorithm).second) continue;
      std::cerr << "warning: " << trial.algorithm << " is not used, because a process that ran it for "
                << trial.problem << " did not survive that; to try it again, delete " << trial.record
                << std::endl;
    }
    if (trials_.own_kernels != OwnKernels::kAll)
      absl::StrAppend(&left_out_, ", --own_kernels=", NameOf(trials_.own_kernels));
    if (!excluded_.empty()) absl::StrAppend(&left_out_, ", without ", absl::StrJoin(excluded_, ", "));
    return absl::OkStatus();
  }

  std::string Describe() const override { return description_; }
  std::string address() const override { return address_; }
  std::string uuid() const override { return uuid_; }

  Buffer Allocate(size_t bytes) override {
    void* data = nullptr;
    if (bytes == 0 || !Allocated(cudaMalloc(&data, bytes))) return {};
    DEEPER_CUDA_CHECK(cudaMemsetAsync(data, 0, bytes, stream_.get()));
    Synchronize();  // uploads do not wait for the stream
    return Buffer(data, bytes, [](void* memory, size_t) { cudaFree(memory); });
  }
  Buffer AllocateStaging(size_t bytes) override {
    void* data = nullptr;
    if (bytes == 0 || !Allocated(cudaMallocHost(&data, bytes))) return {};
    std::memset(data, 0, bytes);
    return Buffer(data, bytes, [](void* memory, size_t) { cudaFreeHost(memory); });
  }
  size_t AvailableBytes() const override {
    size_t available = 0, total = 0;
    DEEPER_CUDA_CHECK(cudaMemGetInfo(&available, &total));
    return available;
  }

  Stream stream() const override { return {branch_ == nullptr ? stream_.get() : branch_}; }
  void Fork() override { DEEPER_CUDA_CHECK(cudaEventRecord(forked_.get(), stream_.get())); }
  void Branch(int index) override {
    if (profiling_ || index == 0) {  // a profile times launches one after the other
      branch_ = nullptr;
      return;
    }
    BranchStream& branch = branches_[index - 1];
    branch_ = branch.stream.get();
    if (!std::exchange(branch.in_use, true))
      DEEPER_CUDA_CHECK(cudaStreamWaitEvent(branch_, forked_.get(), 0));
  }
  void Join() override {
    branch_ = nullptr;
    for (BranchStream& branch : branches_) {
      if (!std::exchange(branch.in_use, false)) continue;
      DEEPER_CUDA_CHECK(cudaEventRecord(branch.done.get(), branch.stream.get()));
      DEEPER_CUDA_CHECK(cudaStreamWaitEvent(stream_.get(), branch.done.get(), 0));
    }
  }
  void Synchronize() override { DEEPER_CUDA_CHECK(cudaStreamSynchronize(stream_.get())); }
  void Copy(void* to, const void* from, size_t bytes) override {
    if (bytes > 0) DEEPER_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_.get()));
  }
  void Upload(void* to, const void* from, size_t bytes) override {
    if (bytes > 0) DEEPER_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, uploads_.get()));
  }
  void RunAfterUploads(const std::function<void()>& work) override {
    if (profiling_) {  // a profile times launches one after the other
      JoinUploads();
      return work();
    }
    branch_ = uploads_.get();
    work();
    branch_ = nullptr;
  }
  void JoinUploads() override {
    DEEPER_CUDA_CHECK(cudaEventRecord(uploaded_.get(), uploads_.get()));
    DEEPER_CUDA_CHECK(cudaStreamWaitEvent(stream_.get(), uploaded_.get(), 0));
  }
  void WaitForUploads() override { DEEPER_CUDA_CHECK(cudaStreamSynchronize(uploads_.get())); }
  std::unique_ptr<Download> StartDownload(void* to, const void* from, size_t bytes) override {
    DEEPER_CUDA_CHECK(cudaEventRecord(computed_.get(), stream_.get()));
    DEEPER_CUDA_CHECK(cudaStreamWaitEvent(downloads_.get(), computed_.get(), 0));
    return std::make_unique<GpuDownload>(to, from, bytes, downloads_.get());
  }
  std::unique_ptr<Recording> MakeRecording() override;
  std::unique_ptr<IdleTimer> MakeIdleTimer() override { return std::make_unique<StreamTimer>(stream_.get()); }

  void Annotate(const std::string& name) override {
    scope_ = name;
    TraceBegin(TraceLevel::kDetail, name);
  }
  bool Begin(const Launch& launch) override {
    if (profiling_) timed_.push_back({scope_, launch, Now(), nullptr});
    return true;
  }
  void End() override {
    if (profiling_) timed_.back().stop = Now();
  }

  void StartProfile() override { profiling_ = true; }
  std::vector<ProfiledLaunch> StopProfile() override {
    profiling_ = false;
    Synchronize();
    std::vector<ProfiledLaunch> profile;
    for (const TimedLaunch& timed : timed_) {
      profile.push_back({timed.scope, timed.launch, Milliseconds(timed_.front().start, timed.start),
                         Milliseconds(timed.start, timed.stop)});
    }
    timed_.clear();
    return profile;
  }

  absl::StatusOr<std::unique_ptr<CudaPlan>> Plan(const ConvolutionProblem& problem) override {
    const auto reference =
        cudnn::Choose(*convolutions_, ConvolutionCheck::LibraryProblem(problem), options_.deterministic);
    ConvolutionCheck check(problem, reference.ok() ? reference->get() : nullptr, *this, trials_.limit,
                           plans_);
    const auto trial = [&](Algorithm& own, const PlanOperands& operands,
                           const std::function<double()>& time) -> absl::StatusOr<double> {
      RETURN_IF_ERROR(check(own, operands));
      ASSIGN_OR_RETURN(const std::string name, own.Serialize());
      double milliseconds = 0;
      RETURN_IF_ERROR(plans_.OnTrial(name, deeper::ToString(problem), [&] { milliseconds = time(); }));
      return milliseconds;
    };
    return MakePlan(problem, ChooseConvolution(problem), trial);
  }
  absl::StatusOr<std::unique_ptr<CudaPlan>> Plan(const MatmulProblem& problem) override {
    return MakePlan(problem, cublaslt::Choose(*matmuls_, problem), nullptr);  // no trial needed
  }

 private:
  friend class GraphRecording;

  struct TimedLaunch {
    std::string scope;
    Launch launch;
    CudaEvent start, stop;
  };

  CudaEvent Now() {
    CudaEvent event = MakeCudaEvent(cudaEventDefault);
    DEEPER_CUDA_CHECK(cudaEventRecord(event.get(), stream_.get()));
    return event;
  }
  static double Milliseconds(const CudaEvent& from, const CudaEvent& to) {
    float milliseconds = 0;
    DEEPER_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, from.get(), to.get()));
    return milliseconds;
  }

  // Returns false if memory is insufficient. Clears CUDA's error, since the caller handles it.
  static bool Allocated(cudaError_t error) {
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      return false;
    }
    DEEPER_CUDA_CHECK(error);
    return true;
  }

  // Custom kernels come before cuDNN's proposals, since they are built at once. A deterministic device always
  // uses the same choice: cuDNN's first that works, or a custom kernel if none does.
  absl::StatusOr<std::unique_ptr<AlgorithmChoice>> ChooseConvolution(const ConvolutionProblem& problem) {
    auto library = cudnn::Choose(*convolutions_, NarrowProblem(problem), options_.deterministic);
    if (problem.wide_dw) library = Widened(problem, std::move(library));
    if (trials_.own_kernels == OwnKernels::kNone) return library;
    const int capability =
        trials_.own_kernels == OwnKernels::kSm80 ? std::min(compute_capability_, 80) : compute_capability_;
    auto own = tensor_core::Choose(capability, problem, excluded_);
    if (!own.ok()) return library;
    if (!library.ok()) return own;
    if (options_.deterministic) std::swap(own, library);
    return std::make_unique<BothChoices>(*std::move(own), *std::move(library));
  }

  // Known plans come first: tuned by this run for an equal problem, or by an earlier run.
  template <class Problem>
  absl::StatusOr<std::unique_ptr<CudaPlan>> MakePlan(const Problem& problem,
                                                     absl::StatusOr<std::unique_ptr<AlgorithmChoice>> choice,
                                                     const AlgorithmTrial& trial) {
    RETURN_IF_ERROR(choice.status());
    const std::string words = deeper::ToString(problem), key = trial ? words + left_out_ : words;
    absl::StatusOr<std::unique_ptr<Algorithm>> algorithm = NotFound("not tuned yet");
    if (const std::optional<std::string> known = plans_.Find(key)) algorithm = (*choice)->Load(*known);
    if (!algorithm.ok()) {
      // Timing varies between runs, and another algorithm may round differently.
      const int contenders = options_.deterministic ? 1 : kContenders;
      ASSIGN_OR_RETURN(algorithm, ChooseFastest(**choice, words, SizesOf(problem), *this,
                                                {contenders, trials_.limit}, trial));
      const absl::StatusOr<std::string> text = (*algorithm)->Serialize();  // some plans cannot be saved
      if (text.ok()) RETURN_IF_ERROR(plans_.Put(key, *text));
    }
    const size_t workspace_bytes = (*algorithm)->workspace_bytes();
    return std::make_unique<AlgorithmPlan>(*this, LaunchOf(problem), *std::move(algorithm), workspace_bytes);
  }

  const CudaOptions options_;
  const TrialOptions trials_;
  const std::string description_, address_, uuid_;
  const int compute_capability_;  // 90
  const int driver_;              // as in Gpu
  const CudaStream stream_ = MakeCudaStream(), uploads_ = MakeCudaStream(), downloads_ = MakeCudaStream();
  const CudaEvent uploaded_ = MakeCudaEvent(), computed_ = MakeCudaEvent(), forked_ = MakeCudaEvent();
  struct BranchStream {
    CudaStream stream = MakeCudaStream();
    CudaEvent done = MakeCudaEvent();
    bool in_use = false;  // since Fork
  };
  BranchStream branches_[kBranches - 1];  // branch 0 is the stream itself
  cudaStream_t branch_ = nullptr;         // target of the next work; nullptr: the stream itself
  std::unique_ptr<cudnn::Target> convolutions_;
  std::unique_ptr<cublaslt::Target> matmuls_;
  PlanCache plans_;
  std::set<std::string> excluded_;  // custom kernels
  std::string left_out_;            // ends the keys of convolutions that were planned without some kernels
  std::string scope_;
  bool profiling_ = false;
  std::vector<TimedLaunch> timed_;
};

// The first run executes directly, so that CUDA and its libraries finish lazy loading, which a capture
// forbids. The second run is captured.
class GraphRecording final : public Recording {
 public:
  explicit GraphRecording(const GpuDevice& device) : device_(device) {}
  ~GraphRecording() override {
    if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
  }

  void Run(const std::function<void()>& work) override {
    if (device_.profiling_ || !std::exchange(warm_, true)) return work();
    if (graph_ == nullptr) Capture(work);
    DEEPER_CUDA_CHECK(cudaGraphLaunch(graph_, device_.stream_.get()));
  }

 private:
  void Capture(const std::function<void()>& work) {
    const cudaStream_t stream = device_.stream_.get();
    cudaGraph_t captured = nullptr;
    // The capture ignores CUDA calls of other threads.
    DEEPER_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    {
      std::optional<EarlyStarts> early;
      if (device_.options_.early_starts && device_.compute_capability_ >= kFirstWithEarlyStarts &&
          device_.driver_ >= kDriverWithEdges)
        early.emplace();
      work();
    }
    DEEPER_CUDA_CHECK(cudaStreamEndCapture(stream, &captured));
    // Kernels keep the priorities of their streams: otherwise NCCL's would wait behind backward.
    DEEPER_CUDA_CHECK(cudaGraphInstantiate(&graph_, captured, cudaGraphInstantiateFlagUseNodePriority));
    DEEPER_CUDA_CHECK(cudaGraphDestroy(captured));
    DEEPER_CUDA_CHECK(cudaGraphUpload(graph_, stream));
  }

  const GpuDevice& device_;
  bool warm_ = false;
  cudaGraphExec_t graph_ = nullptr;
};

std::unique_ptr<Recording> GpuDevice::MakeRecording() {
  if (!options_.graphs) return CudaDevice::MakeRecording();
  return std::make_unique<GraphRecording>(*this);
}

// Returns the number of GPUs that this process sees, or the reason why it can use none.
absl::StatusOr<int> CountGpus(int driver) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (driver == 0) {
    return NotFound("--device=cuda: this machine has no NVIDIA driver: install one, or use --device=cpu");
  }
  if (error == cudaErrorInsufficientDriver) {
    return FailedPrecondition("--device=cuda: the NVIDIA driver supports CUDA up to ", CudaVersion(driver),
                              ", and this program was built with CUDA ", CudaVersion(CUDART_VERSION),
                              ": update the driver, or use --device=cpu");
  }
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0)) {
    return NotFound("--device=cuda: CUDA finds no GPU; check CUDA_VISIBLE_DEVICES, or use --device=cpu");
  }
  if (error != cudaSuccess) {
    return FailedPrecondition("--device=cuda: CUDA failed to start: ", ToString(error));
  }
  return count;
}

absl::StatusOr<Gpu> OpenGpu(int index) {
  Gpu gpu;
  if (cudaDriverGetVersion(&gpu.driver) != cudaSuccess) gpu.driver = 0;
  ASSIGN_OR_RETURN(const int count, CountGpus(gpu.driver));
  index %= count;
  cudaError_t error = cudaGetDeviceProperties(&gpu.properties, index);
  const int major = gpu.properties.major, minor = gpu.properties.minor;
  const std::string model = absl::StrCat("--device=cuda: GPU ", index, " is a ", gpu.properties.name,
                                         " of compute capability ", major, ".", minor);
  if (error == cudaSuccess && major < kLeastMajor)
    return FailedPrecondition(model, "; this program needs 8.0 (A100) or later: use --device=cpu");
  if (error == cudaSuccess) error = cudaSetDevice(index);
  if (error == cudaSuccess) error = cudaFree(nullptr);  // creates the context if there is none
  char address[32] = "";
  if (error == cudaSuccess) error = cudaDeviceGetPCIBusId(address, sizeof address, index);
  if (error == cudaSuccess) error = FindKernelCode();
  if (error != cudaSuccess) {
    cudaGetLastError();
    if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction)
      return FailedPrecondition(model, ", and this program was built without code for it: build with ",
                                "-DCMAKE_CUDA_ARCHITECTURES=", major, minor, ", or use --device=cpu");
    return FailedPrecondition("--device=cuda: GPU ", index, " cannot be used: ", ToString(error));
  }
  gpu.address = address;
  gpu.uuid = absl::BytesToHexString({gpu.properties.uuid.bytes, sizeof gpu.properties.uuid.bytes});
  return gpu;
}

// Uploads and launches are fastest from the cores near the GPU.
void KeepNear(const std::string& address) {
  std::string path = absl::StrCat("/sys/bus/pci/devices/", address, "/local_cpulist");
  std::transform(path.begin(), path.end(), path.begin(), [](unsigned char c) { return std::tolower(c); });
  std::string list;
  std::getline(std::ifstream(path), list);
  KeepTo(ParseCpuList(list));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(const CudaOptions& options) {
  return MakeCudaDevice(options, {});
}

absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(const CudaOptions& options,
                                                       const TrialOptions& trials) {
  ASSIGN_OR_RETURN(const Gpu gpu, OpenGpu(options.index));
  KeepNear(gpu.address);
  auto device = std::make_unique<GpuDevice>(gpu, options, trials);
  if (absl::Status status = device->Init(); !status.ok()) {
    return FailedPrecondition("--device=cuda: ", status.message());
  }
  return device;
}

}  // namespace deeper
