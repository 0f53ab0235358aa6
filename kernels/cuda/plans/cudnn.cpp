#include "kernels/cuda/plans/cudnn.h"

#include <mutex>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/base/status.h"
#include "kernels/cuda/plans/cudnn_descriptor.h"

namespace deeper::cudnn {
namespace {

// Limit per call, so that one algorithm's workspace does not reduce the possible batch size.
constexpr int64_t kMaxWorkspaceBytes = int64_t{1} << 30;
constexpr int64_t kAlignment = 16;

// The handles of a GPU. Only one thread at a time may use one, so each build borrows one.
class Handles {
 public:
  Handles() = default;
  Handles(const Handles&) = delete;
  Handles& operator=(const Handles&) = delete;
  ~Handles() {
    for (cudnnHandle_t handle : idle_) cudnnDestroy(handle);
  }

  // The handle that was returned last, or a new one.
  absl::StatusOr<cudnnHandle_t> Borrow() {
    {
      std::scoped_lock lock(mutex_);
      if (!idle_.empty()) {
        const cudnnHandle_t handle = idle_.back();
        idle_.pop_back();
        return handle;
      }
    }
    cudnnHandle_t handle = nullptr;
    RETURN_IF_ERROR(StatusOf(cudnnCreate(&handle)));
    return handle;
  }
  void Return(cudnnHandle_t handle) {
    std::scoped_lock lock(mutex_);
    idle_.push_back(handle);
  }

 private:
  std::mutex mutex_;
  std::vector<cudnnHandle_t> idle_;
};

// A real GPU has handles; a described GPU has its properties instead.
struct TargetImpl final : Target {
  cudnnHandle_t handle = nullptr;  // runs plans; builds may borrow it too, since no plan runs meanwhile
  mutable Handles handles;
  std::optional<Descriptor> properties;
};

enum Uid : int64_t { kA = 1, kB, kBias, kD, kSum, kBiased };

// The graph of operations of a problem, built step by step. Keeps the first error.
class GraphBuilder {
 public:
  explicit GraphBuilder(const ConvolutionProblem& problem)
      : p_(problem), dtype_(p_.dtype == DType::kBf16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT) {
    if (p_.dtype != DType::kBf16 && p_.dtype != DType::kF32) {
      status_ = Unimplemented("element type ", NameOf(p_.dtype));
    }
  }

  absl::StatusOr<Descriptor> Build(cudnnHandle_t handle) {
    using Pass = ConvolutionProblem::Pass;
    if (p_.pass == Pass::kForward) Forward();
    if (p_.pass == Pass::kBackwardData) BackwardData();
    if (p_.pass == Pass::kBackwardWeights) BackwardWeights();
    Descriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    graph.Set(CUDNN_ATTR_OPERATIONGRAPH_OPS, operations_);
    if (handle != nullptr) graph.Set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, handle);
    graph = Finished(std::move(graph));
    if (!status_.ok()) return status_;
    return graph;
  }

 private:
  void Forward() {
    const Descriptor x = X(kA), w = W(kB), y = Y(kD);
    // Tensors between operations are virtual (never stored) and fp32.
    const Descriptor sum = Virtual(kSum), biased = Virtual(kBiased);
    Descriptor convolution(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    convolution.Set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, Window())
        .Set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, 1.0f)
        .Set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, 0.0f)
        .Set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x)
        .Set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, w)
        .Set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, p_.bias || p_.relu ? sum : y);
    operations_.push_back(Finished(std::move(convolution)));
    if (p_.bias) {
      const cudnnDataType_t type = p_.bias_dtype() == DType::kF32 ? CUDNN_DATA_FLOAT : dtype_;
      const Descriptor bias = Tensor(kBias, type, {1, p_.k, 1, 1}, p_.k);
      Pointwise(CUDNN_POINTWISE_ADD, sum, &bias, p_.relu ? biased : y);
    }
    if (p_.relu) Pointwise(CUDNN_POINTWISE_RELU_FWD, p_.bias ? biased : sum, nullptr, y);
  }

  void BackwardData() {
    Descriptor convolution(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR);
    convolution.Set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, Window())
        .Set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, 1.0f)
        .Set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, 0.0f)
        .Set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, Y(kA))
        .Set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, W(kB))
        .Set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, X(kD));
    operations_.push_back(Finished(std::move(convolution)));
  }

  void BackwardWeights() {
    Descriptor convolution(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR);
    convolution.Set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, Window())
        .Set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, 1.0f)
        .Set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA, 0.0f)
        .Set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, X(kA))
        .Set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, Y(kB))
        .Set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, W(kD));
    operations_.push_back(Finished(std::move(convolution)));
  }

  void Pointwise(cudnnPointwiseMode_t mode, const Descriptor& x, const Descriptor* b, const Descriptor& y) {
    Descriptor function(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    function.Set(CUDNN_ATTR_POINTWISE_MODE, mode).Set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT);
    Descriptor operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    operation.Set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, Finished(std::move(function)))
        .Set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x)
        .Set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    if (b != nullptr) operation.Set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, *b);
    operations_.push_back(Finished(std::move(operation)));
  }

  Descriptor Window() {
    const std::vector<int64_t> stride = {p_.stride, p_.stride}, pad = {p_.pad, p_.pad}, dilation = {1, 1};
    Descriptor window(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    window.Set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT)
        .Set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_CROSS_CORRELATION)
        .Set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, int64_t{2})
        .Set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, stride)
        .Set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, pad)
        .Set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, pad)
        .Set(CUDNN_ATTR_CONVOLUTION_DILATIONS, dilation);
    return Finished(std::move(window));
  }

  Descriptor X(int64_t uid) { return Tensor(uid, dtype_, {p_.n, p_.c, p_.h, p_.w}, p_.PitchOfX()); }
  Descriptor W(int64_t uid) { return Tensor(uid, dtype_, {p_.k, p_.c, p_.kernel, p_.kernel}, p_.c); }
  Descriptor Y(int64_t uid) {
    return Tensor(uid, dtype_, {p_.n, p_.k, p_.out_h(), p_.out_w()}, p_.PitchOfY());
  }
  Descriptor Virtual(int64_t uid) {
    return Tensor(uid, CUDNN_DATA_FLOAT, {p_.n, p_.k, p_.out_h(), p_.out_w()}, p_.k, true);
  }

  // dims in the order N, C, H, W. In memory C varies fastest, and pixels are `pitch` elements apart.
  Descriptor Tensor(int64_t uid, cudnnDataType_t dtype, const std::vector<int64_t>& dims, int64_t pitch,
                    bool is_virtual = false) {
    const int64_t h = dims[2], w = dims[3];
    const std::vector<int64_t> strides = {h * w * pitch, 1, w * pitch, pitch};
    Descriptor tensor(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    tensor.Set(CUDNN_ATTR_TENSOR_UNIQUE_ID, uid)
        .Set(CUDNN_ATTR_TENSOR_DATA_TYPE, dtype)
        .Set(CUDNN_ATTR_TENSOR_DIMENSIONS, dims)
        .Set(CUDNN_ATTR_TENSOR_STRIDES, strides)
        .Set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, kAlignment)
        .Set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, is_virtual);
    return Finished(std::move(tensor));
  }

  Descriptor Finished(Descriptor descriptor) {
    status_.Update(descriptor.Finalize());
    return descriptor;
  }

  const ConvolutionProblem& p_;
  const cudnnDataType_t dtype_;
  std::vector<Descriptor> operations_;
  absl::Status status_;
};

class ExecutionPlan final : public Algorithm {
 public:
  // `plan` is finalized; `graph` is its graph.
  ExecutionPlan(const TargetImpl& target, bool bias, std::shared_ptr<const Descriptor> graph, Descriptor plan,
                int64_t workspace_bytes)
      : target_(target), bias_(bias), graph_(std::move(graph)), plan_(std::move(plan)) {
    workspace_bytes_ = static_cast<size_t>(workspace_bytes);
  }

  absl::StatusOr<std::string> Serialize() const override {
    ASSIGN_OR_RETURN(const auto text, plan_.Get<char>(CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION));
    return std::string(text.begin(), text.end());
  }

  absl::Status Enqueue(const PlanOperands& operands, Stream stream) override {
    if (target_.handle == nullptr) return FailedPrecondition("cuDNN: a plan without a GPU cannot run");
    // Ops are bound to their memory permanently, so this happens once.
    if (!pack_.has_value() || operands != packed_) RETURN_IF_ERROR(Pack(operands));
    const auto native = static_cast<cudaStream_t>(stream.native);
    RETURN_IF_ERROR(StatusOf(cudnnSetStream(target_.handle, native)));
    return StatusOf(cudnnBackendExecute(target_.handle, plan_.raw(), pack_->raw()));
  }

 private:
  absl::Status Pack(const PlanOperands& o) {
    std::vector<int64_t> uids = {kA, kB, kD};
    std::vector<void*> pointers = {const_cast<void*>(o.a), const_cast<void*>(o.b), o.d};
    if (bias_) {
      uids.push_back(kBias);
      pointers.push_back(const_cast<void*>(o.bias));
    }
    Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    pack.Set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, uids)
        .Set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, pointers)
        .Set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, o.workspace);
    RETURN_IF_ERROR(pack.Finalize());
    pack_ = std::move(pack);
    packed_ = o;
    return absl::OkStatus();
  }

  const TargetImpl& target_;
  const bool bias_;
  const std::shared_ptr<const Descriptor> graph_;
  const Descriptor plan_;
  std::optional<Descriptor> pack_;
  PlanOperands packed_;
};

class EngineChoice final : public AlgorithmChoice {
 public:
  EngineChoice(const TargetImpl& target, const ConvolutionProblem& problem, bool deterministic,
               Descriptor graph)
      : target_(target),
        problem_(problem),
        deterministic_(deterministic),
        graph_(std::make_shared<const Descriptor>(std::move(graph))) {}

  absl::Status Ask() override {
    absl::Status status;
    for (const auto mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_B, CUDNN_HEUR_MODE_FALLBACK}) {
      status.Update(Ask(mode));
    }
    if (size() > 0) return absl::OkStatus();
    status.Update(Unimplemented("cuDNN has no engine of the required accuracy"));
    return Named(Unimplemented(status.message()), problem_);
  }

  size_t size() const override { return configurations_.size(); }

  absl::StatusOr<std::unique_ptr<Algorithm>> Build(size_t index) const override {
    Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    plan.Set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configurations_[index]);
    return Finish(std::move(plan));
  }

  absl::StatusOr<std::unique_ptr<Algorithm>> Load(const std::string& serialized) const override {
    Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    plan.Set(CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, serialized);
    return Finish(std::move(plan));
  }

 private:
  // Appends the permitted proposals of this mode of the heuristics.
  absl::Status Ask(cudnnBackendHeurMode_t mode) {
    Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    heuristics.Set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, *graph_).Set(CUDNN_ATTR_ENGINEHEUR_MODE, mode);
    if (target_.properties.has_value()) heuristics.Set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *target_.properties);
    RETURN_IF_ERROR(heuristics.Finalize());
    ASSIGN_OR_RETURN(auto configurations,
                     heuristics.Get(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
    for (Descriptor& configuration : configurations) {
      ASSIGN_OR_RETURN(const bool allowed, IsAllowed(configuration));
      if (!allowed) continue;
      ASSIGN_OR_RETURN(const bool is_new, IsNew(configuration));
      if (is_new) configurations_.push_back(std::move(configuration));
    }
    return absl::OkStatus();
  }

  // The modes propose the same configurations. To build one takes up to 0.7 s, if its engine compiles.
  absl::StatusOr<bool> IsNew(const Descriptor& configuration) {
    std::vector<int64_t> key;
    ASSIGN_OR_RETURN(const auto engines,
                     configuration.Get(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR));
    ASSIGN_OR_RETURN(const auto index, engines.at(0).Get<int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX));
    key.push_back(index.at(0));
    ASSIGN_OR_RETURN(const auto knobs, configuration.Get(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                                                         CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR));
    for (const Descriptor& knob : knobs) {
      ASSIGN_OR_RETURN(const auto type, knob.Get<cudnnBackendKnobType_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE));
      ASSIGN_OR_RETURN(const auto value, knob.Get<int64_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE));
      key.push_back(type.at(0));
      key.push_back(value.at(0));
    }
    return seen_.insert(std::move(key)).second;
  }

  absl::StatusOr<bool> IsAllowed(const Descriptor& configuration) const {
    ASSIGN_OR_RETURN(const auto engines,
                     configuration.Get(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR));
    ASSIGN_OR_RETURN(const auto notes,
                     engines.at(0).Get<cudnnBackendNumericalNote_t>(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE));
    for (const cudnnBackendNumericalNote_t note : notes) {
      const bool fp32 = problem_.dtype == DType::kF32;
      if (note == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION) return false;
      if (note == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS) return false;
      if (note == CUDNN_NUMERICAL_NOTE_TENSOR_CORE && fp32) return false;  // TF32
      if (note == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC && deterministic_) return false;
    }
    return true;
  }

  absl::StatusOr<std::unique_ptr<Algorithm>> Finish(Descriptor plan) const {
    if (absl::Status status = Finalize(plan); !status.ok()) return Named(status, problem_);
    const auto workspace = plan.Get<int64_t>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE);
    if (!workspace.ok()) return Named(workspace.status(), problem_);
    if (workspace->at(0) > kMaxWorkspaceBytes) {
      return ResourceExhausted(ToString(problem_), ": cuDNN: the plan needs ", workspace->at(0),
                               " bytes of workspace");
    }
    return std::make_unique<ExecutionPlan>(target_, problem_.bias, graph_, std::move(plan), workspace->at(0));
  }

  // The plan may run with another handle of the same GPU than the one that it was built with.
  absl::Status Finalize(Descriptor& plan) const {
    if (target_.properties.has_value()) {
      plan.Set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, *target_.properties);
      return plan.Finalize();
    }
    ASSIGN_OR_RETURN(const cudnnHandle_t handle, target_.handles.Borrow());
    plan.Set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, handle);
    const absl::Status status = plan.Finalize();
    target_.handles.Return(handle);
    return status;
  }

  const TargetImpl& target_;
  const ConvolutionProblem problem_;
  const bool deterministic_;
  const std::shared_ptr<const Descriptor> graph_;
  std::vector<Descriptor> configurations_;
  std::set<std::vector<int64_t>> seen_;  // engines with their knobs
};

}  // namespace

std::string Version() {
  const size_t version = cudnnGetVersion();
  const size_t patch = version % 100;
  return absl::StrCat(version / 10000, ".", version / 100 % 100, patch == 0 ? "" : absl::StrCat(".", patch));
}

absl::StatusOr<std::unique_ptr<Target>> MakeGpuTarget() {
  auto target = std::make_unique<TargetImpl>();
  ASSIGN_OR_RETURN(target->handle, target->handles.Borrow());
  target->handles.Return(target->handle);
  return target;
}

absl::StatusOr<std::unique_ptr<Target>> MakeDevicelessTarget(const std::string& device_property_json) {
  auto target = std::make_unique<TargetImpl>();
  target->properties.emplace(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  target->properties->Set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, device_property_json);
  if (absl::Status status = target->properties->Finalize(); !status.ok()) {
    return InvalidArgument("cannot read the device properties: ", status.message());
  }
  return target;
}

absl::StatusOr<std::string> DeviceProperties() {
  ASSIGN_OR_RETURN(const auto target, MakeGpuTarget());
  Descriptor properties(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  properties.Set(CUDNN_ATTR_DEVICEPROP_HANDLE, static_cast<const TargetImpl&>(*target).handle);
  RETURN_IF_ERROR(properties.Finalize());
  ASSIGN_OR_RETURN(const auto text, properties.Get<char>(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION));
  return std::string(text.begin(), text.end());
}

absl::StatusOr<std::unique_ptr<AlgorithmChoice>> Choose(const Target& target,
                                                        const ConvolutionProblem& problem,
                                                        bool deterministic) {
  if (problem.mask_dx) return Named(Unimplemented("cuDNN does not mask gradients"), problem);
  if (problem.pool_x || problem.pool_y) return Named(Unimplemented("cuDNN does not pool"), problem);
  if (problem.wide_dw) return Named(Unimplemented("cuDNN writes dw in the type of x"), problem);
  const auto& impl = static_cast<const TargetImpl&>(target);
  absl::StatusOr<Descriptor> graph = GraphBuilder(problem).Build(impl.handle);
  if (!graph.ok()) return Named(graph.status(), problem);
  return std::make_unique<EngineChoice>(impl, problem, deterministic, *std::move(graph));
}

}  // namespace deeper::cudnn
