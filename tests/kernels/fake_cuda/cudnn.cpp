// cuDNN's backend API, as far as deeper calls it. A plan is the convolution that its graph describes, in
// naive loops.
#include <cudnn_backend.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/cuda/plans/cuda_problem.h"
#include "tests/kernels/fake_cuda/naive_launch.h"
#include "tests/kernels/host_plans.h"

using deeper::ConvolutionProblem;
using deeper::DType;
using deeper::fake_cuda::Fail;
using Json = nlohmann::json;

struct cudnnContext {
  cudaStream_t stream = nullptr;
  std::mutex mutex;  // of the thread that uses it
};

namespace {

struct Object;
using Child = std::shared_ptr<Object>;

struct Values {
  int64_t count = 0;
  std::vector<char> bytes;
  std::vector<Child> children;
};

// A convolution, and the unique ids of its tensors.
struct Graph {
  ConvolutionProblem problem;
  int64_t a = 0, b = 0, d = 0, bias = 0;
};

struct Object {
  cudnnBackendDescriptorType_t type;
  bool finalized = false;
  std::map<cudnnBackendAttributeName_t, Values> values;
  std::optional<Graph> graph;  // of a plan

  template <class T>
  std::vector<T> All(cudnnBackendAttributeName_t name) const {
    const auto found = values.find(name);
    if (found == values.end()) return {};
    std::vector<T> all(static_cast<size_t>(found->second.count));
    if (all.size() * sizeof(T) != found->second.bytes.size()) Fail("cuDNN: an attribute of another size");
    std::memcpy(all.data(), found->second.bytes.data(), found->second.bytes.size());
    return all;
  }
  template <class T>
  T One(cudnnBackendAttributeName_t name) const {
    const std::vector<T> all = All<T>(name);
    if (all.size() != 1) Fail(absl::StrCat("cuDNN: attribute ", name, " has ", all.size(), " values"));
    return all[0];
  }
  const std::vector<Child>& Children(cudnnBackendAttributeName_t name) const {
    static const std::vector<Child> none;
    const auto found = values.find(name);
    return found == values.end() ? none : found->second.children;
  }
  const Object& Only(cudnnBackendAttributeName_t name) const {
    if (Children(name).size() != 1) Fail(absl::StrCat("cuDNN: attribute ", name, " is not one descriptor"));
    return *Children(name)[0];
  }
  template <class T>
  void Put(cudnnBackendAttributeName_t name, const std::vector<T>& all) {
    Values& value = values[name];
    value.count = static_cast<int64_t>(all.size());
    value.bytes.resize(all.size() * sizeof(T));
    std::memcpy(value.bytes.data(), all.data(), value.bytes.size());
  }
  void Put(cudnnBackendAttributeName_t name, std::vector<Child> children) {
    values[name] = {static_cast<int64_t>(children.size()), {}, std::move(children)};
  }
};

Child& Of(cudnnBackendDescriptor_t descriptor) {
  return *static_cast<Child*>(descriptor);
}

size_t SizeOf(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_CHAR:
    case CUDNN_TYPE_BOOLEAN:
      return 1;
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_HANDLE:
      return 8;
    default:
      return 4;
  }
}

DType TypeOf(const Object& tensor) {
  const auto type = tensor.One<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE);
  if (type != CUDNN_DATA_BFLOAT16 && type != CUDNN_DATA_FLOAT) Fail("cuDNN: an unknown element type");
  return type == CUDNN_DATA_BFLOAT16 ? DType::kBf16 : DType::kF32;
}

// The sizes of a tensor in the order N, C, H, W and its pitch. Its layout must be NHWC.
struct Sizes {
  explicit Sizes(const Object& tensor)
      : dims(tensor.All<int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS)),
        strides(tensor.All<int64_t>(CUDNN_ATTR_TENSOR_STRIDES)),
        uid(tensor.One<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID)),
        dtype(TypeOf(tensor)) {
    if (dims.size() != 4 || strides.size() != 4 || strides[1] != 1 || strides[2] != dims[3] * strides[3] ||
        strides[0] != dims[2] * strides[2] || strides[3] < dims[1])
      Fail("cuDNN: a tensor that is not NHWC");
  }
  int64_t pitch() const { return strides[3] == dims[1] ? 0 : strides[3]; }
  std::vector<int64_t> dims, strides;
  int64_t uid;
  DType dtype;
};

struct Names {
  ConvolutionProblem::Pass pass;
  cudnnBackendAttributeName_t window, alpha, beta, x, w, y;
};
const std::map<cudnnBackendDescriptorType_t, Names>& Convolutions() {
  using Pass = ConvolutionProblem::Pass;
  static const std::map<cudnnBackendDescriptorType_t, Names> names = {
      {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
       {Pass::kForward, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y}},
      {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
       {Pass::kBackwardData, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY}},
      {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
       {Pass::kBackwardWeights, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY}}};
  return names;
}

int64_t Same(const Object& window, cudnnBackendAttributeName_t name) {
  const auto both = window.All<int64_t>(name);
  if (both.size() != 2 || both[0] != both[1]) Fail("cuDNN: a window that is not square");
  return both[0];
}

// What an operation graph computes.
Graph Read(const Object& operations) {
  const std::vector<Child>& all = operations.Children(CUDNN_ATTR_OPERATIONGRAPH_OPS);
  if (all.empty() || !Convolutions().contains(all[0]->type)) Fail("cuDNN: a graph without a convolution");
  const Object& first = *all[0];
  const Names& names = Convolutions().at(first.type);
  if (first.One<float>(names.alpha) != 1 || first.One<float>(names.beta) != 0)
    Fail("cuDNN: factors other than 1 and 0");
  const Sizes x(first.Only(names.x)), w(first.Only(names.w)), y(first.Only(names.y));
  Graph graph;
  ConvolutionProblem& p = graph.problem;
  p = {.pass = names.pass, .dtype = x.dtype, .n = x.dims[0], .h = x.dims[2], .w = x.dims[3], .c = x.dims[1]};
  p.k = w.dims[0];
  p.kernel = w.dims[2];
  p.x_pitch = x.pitch();
  const Object& window = first.Only(names.window);
  p.stride = Same(window, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES);
  p.pad = Same(window, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS);
  if (Same(window, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS) != p.pad ||
      Same(window, CUDNN_ATTR_CONVOLUTION_DILATIONS) != 1 ||
      window.One<cudnnDataType_t>(CUDNN_ATTR_CONVOLUTION_COMP_TYPE) != CUDNN_DATA_FLOAT ||
      window.One<cudnnConvolutionMode_t>(CUDNN_ATTR_CONVOLUTION_CONV_MODE) != CUDNN_CROSS_CORRELATION)
    Fail("cuDNN: a window that is not ours");
  if (y.dims != std::vector<int64_t>{p.n, p.k, p.out_h(), p.out_w()} || w.dims[1] != p.c ||
      w.dims[3] != p.kernel || w.pitch() != 0)
    Fail("cuDNN: tensors whose sizes do not match");
  int64_t result = y.uid, pitch = y.pitch();
  for (size_t i = 1; i < all.size(); ++i) {
    const Object& operation = *all[i];
    const Sizes in(operation.Only(CUDNN_ATTR_OPERATION_POINTWISE_XDESC)),
        out(operation.Only(CUDNN_ATTR_OPERATION_POINTWISE_YDESC));
    if (in.uid != result) Fail("cuDNN: an operation that does not follow the one before");
    const auto mode = operation.Only(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR)
                          .One<cudnnPointwiseMode_t>(CUDNN_ATTR_POINTWISE_MODE);
    if (mode == CUDNN_POINTWISE_ADD && !p.relu) {
      const Sizes bias(operation.Only(CUDNN_ATTR_OPERATION_POINTWISE_BDESC));
      if (bias.dims != std::vector<int64_t>{1, p.k, 1, 1}) Fail("cuDNN: a bias of another size");
      p.bias = true;
      p.wide_bias = bias.dtype == DType::kF32 && p.dtype != DType::kF32;
      graph.bias = bias.uid;
    } else if (mode == CUDNN_POINTWISE_RELU_FWD) {
      p.relu = true;
    } else {
      Fail("cuDNN: an operation that is not ours");
    }
    result = out.uid;
    pitch = out.pitch();
  }
  p.y_pitch = pitch;
  graph.a = names.pass == ConvolutionProblem::Pass::kBackwardData ? y.uid : x.uid;
  graph.b = names.pass == ConvolutionProblem::Pass::kBackwardWeights ? y.uid : w.uid;
  graph.d = names.pass == ConvolutionProblem::Pass::kForward        ? result
            : names.pass == ConvolutionProblem::Pass::kBackwardData ? x.uid
                                                                    : w.uid;
  return graph;
}

Json ToJson(const Graph& g) {
  const ConvolutionProblem& p = g.problem;
  return {static_cast<int>(p.pass),
          p.dtype == DType::kBf16,
          p.n,
          p.h,
          p.w,
          p.c,
          p.k,
          p.kernel,
          p.stride,
          p.pad,
          p.x_pitch,
          p.y_pitch,
          p.bias,
          p.relu,
          p.wide_bias,
          g.a,
          g.b,
          g.d,
          g.bias};
}

bool FromJson(const Json& json, Graph& g) {
  if (!json.is_array() || json.size() != 19) return false;
  ConvolutionProblem& p = g.problem;
  p.pass = static_cast<ConvolutionProblem::Pass>(json[0].get<int>());
  p.dtype = json[1].get<bool>() ? DType::kBf16 : DType::kF32;
  int64_t* const numbers[] = {&p.n,      &p.h,      &p.w,   &p.c,       &p.k,
                              &p.kernel, &p.stride, &p.pad, &p.x_pitch, &p.y_pitch};
  for (size_t i = 0; i < std::size(numbers); ++i) *numbers[i] = json[2 + i];
  p.bias = json[12];
  p.relu = json[13];
  p.wide_bias = json[14];
  g.a = json[15];
  g.b = json[16];
  g.d = json[17];
  g.bias = json[18];
  return true;
}

// The engines that heuristics propose, of which only those without notes may be used.
struct Engine {
  int64_t index;
  std::vector<cudnnBackendNumericalNote_t> notes;
  bool works;
};
const std::vector<Engine>& Engines() {
  static const std::vector<Engine> engines = {{1, {CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION}, true},
                                              {2, {}, false},
                                              {3, {}, true},
                                              {4, {CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC}, true},
                                              {5, {CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS}, true}};
  return engines;
}

Child Make(cudnnBackendDescriptorType_t type) {
  return std::make_shared<Object>(Object{.type = type, .finalized = true, .values = {}, .graph = {}});
}

void FinalizeHeuristics(Object& heuristics) {
  const auto& graph = heuristics.Children(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
  std::vector<Child> configurations;
  for (const Engine& engine : Engines()) {
    const Child made = Make(CUDNN_BACKEND_ENGINE_DESCRIPTOR),
                knob = Make(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR),
                configuration = Make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    made->Put<int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, {engine.index});
    made->Put<cudnnBackendNumericalNote_t>(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, engine.notes);
    made->Put(CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph);
    knob->Put<cudnnBackendKnobType_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, {CUDNN_KNOB_TYPE_SPLIT_K});
    knob->Put<int64_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, {engine.index});
    configuration->Put(CUDNN_ATTR_ENGINECFG_ENGINE, std::vector<Child>{made});
    configuration->Put(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, std::vector<Child>{knob});
    configurations.push_back(configuration);
  }
  heuristics.Put(CUDNN_ATTR_ENGINEHEUR_RESULTS, std::move(configurations));
}

cudnnStatus_t FinalizePlan(Object& plan) {
  const auto handles = plan.All<cudnnHandle_t>(CUDNN_ATTR_EXECUTION_PLAN_HANDLE);
  if (handles.size() != 1) return CUDNN_STATUS_BAD_PARAM;
  const std::unique_lock use(handles[0]->mutex, std::try_to_lock);
  if (!use.owns_lock()) Fail("cuDNN: two threads use a handle at a time");
  std::this_thread::sleep_for(std::chrono::microseconds(200));  // cuDNN may compile
  Graph graph;
  int64_t engine = 0;
  if (const auto text = plan.All<char>(CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION); !text.empty()) {
    const Json json = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("engine") || !FromJson(json["graph"], graph))
      return CUDNN_STATUS_BAD_PARAM;
    engine = json["engine"];
  } else {
    const Object& made = plan.Only(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG).Only(CUDNN_ATTR_ENGINECFG_ENGINE);
    engine = made.One<int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
    graph = Read(made.Only(CUDNN_ATTR_ENGINE_OPERATION_GRAPH));
  }
  const auto found =
      std::find_if(Engines().begin(), Engines().end(), [&](const Engine& e) { return e.index == engine; });
  if (found == Engines().end() || !found->works) return CUDNN_STATUS_NOT_SUPPORTED;
  const std::string text = Json({{"engine", engine}, {"graph", ToJson(graph)}}).dump();
  plan.Put(CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, std::vector<char>(text.begin(), text.end()));
  plan.Put<int64_t>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                    {int64_t{deeper::fake_cuda::kNaiveWorkspaceBytes}});
  plan.graph = graph;
  return CUDNN_STATUS_SUCCESS;
}

}  // namespace

extern "C" {

size_t cudnnGetVersion() {
  return 90800;
}
const char* cudnnGetErrorString(cudnnStatus_t status) {
  return status == CUDNN_STATUS_NOT_SUPPORTED ? "CUDNN_STATUS_NOT_SUPPORTED" : "CUDNN_STATUS_OF_THE_FAKE";
}
void cudnnGetLastErrorString(char* text, size_t bytes) {
  if (bytes > 0) *text = '\0';
}
cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  if (deeper::fake_cuda::Fails("cudnnCreate")) return CUDNN_STATUS_NOT_INITIALIZED;
  *handle = new cudnnContext;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  delete handle;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  if (deeper::fake_cuda::Fails("cudnnSetStream")) return CUDNN_STATUS_BAD_PARAM;
  handle->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t* made) {
  if (deeper::fake_cuda::Fails("cudnnBackendCreateDescriptor")) return CUDNN_STATUS_ALLOC_FAILED;
  *made = new Child(
      std::make_shared<Object>(Object{.type = type, .finalized = false, .values = {}, .graph = {}}));
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
  delete static_cast<Child*>(descriptor);
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count, const void* from) {
  if (deeper::fake_cuda::Fails("cudnnBackendSetAttribute")) return CUDNN_STATUS_BAD_PARAM;
  Object& object = *Of(descriptor);
  if (object.finalized) return CUDNN_STATUS_NOT_INITIALIZED;
  if (type != CUDNN_TYPE_BACKEND_DESCRIPTOR) {
    const auto* const begin = static_cast<const char*>(from);
    object.values[name] = {count, {begin, begin + static_cast<size_t>(count) * SizeOf(type)}, {}};
    return CUDNN_STATUS_SUCCESS;
  }
  std::vector<Child> children;
  for (int64_t i = 0; i < count; ++i) {
    children.push_back(Of(static_cast<const cudnnBackendDescriptor_t*>(from)[i]));
    if (!children.back()->finalized) return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
  }
  object.Put(name, std::move(children));
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t room, int64_t* count,
                                       void* to) {
  if (deeper::fake_cuda::Fails("cudnnBackendGetAttribute")) return CUDNN_STATUS_BAD_PARAM;
  const Object& object = *Of(descriptor);
  if (!object.finalized) return CUDNN_STATUS_NOT_INITIALIZED;
  const auto found = object.values.find(name);
  *count = found == object.values.end() ? 0 : found->second.count;
  if (room == 0 || *count == 0) return CUDNN_STATUS_SUCCESS;
  *count = std::min(*count, room);
  if (type != CUDNN_TYPE_BACKEND_DESCRIPTOR) {
    std::memcpy(to, found->second.bytes.data(), static_cast<size_t>(*count) * SizeOf(type));
    return CUDNN_STATUS_SUCCESS;
  }
  for (int64_t i = 0; i < *count; ++i)
    Of(static_cast<cudnnBackendDescriptor_t*>(to)[i]) = found->second.children[static_cast<size_t>(i)];
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  if (deeper::fake_cuda::Fails("cudnnBackendFinalize")) return CUDNN_STATUS_BAD_PARAM;
  Object& object = *Of(descriptor);
  if (object.type == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR) FinalizeHeuristics(object);
  if (object.type == CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR) Read(object);
  if (object.type == CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR) {
    if (object.values.empty()) return CUDNN_STATUS_BAD_PARAM;
    const std::string text = "{\"deviceVer\": 900}";
    object.Put(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, std::vector<char>(text.begin(), text.end()));
  }
  if (object.type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) {
    if (const cudnnStatus_t status = FinalizePlan(object); status != CUDNN_STATUS_SUCCESS) return status;
  }
  object.finalized = true;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack) {
  if (deeper::fake_cuda::Fails("cudnnBackendExecute")) return CUDNN_STATUS_EXECUTION_FAILED;
  const Graph& graph = Of(plan)->graph.value();
  const auto uids = Of(pack)->All<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
  const auto pointers = Of(pack)->All<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
  const auto pointer = [&](int64_t uid) {
    const auto found = std::find(uids.begin(), uids.end(), uid);
    if (found == uids.end() || pointers.size() != uids.size())
      Fail(absl::StrCat("cuDNN: no pointer for tensor ", uid));
    return pointers[static_cast<size_t>(found - uids.begin())];
  };
  auto made = deeper::testing::MakeHostPlan(graph.problem);
  if (!made.ok()) return CUDNN_STATUS_NOT_SUPPORTED;
  deeper::PlanOperands operands = {.a = pointer(graph.a), .b = pointer(graph.b), .d = pointer(graph.d)};
  operands.workspace = Of(pack)->One<void*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
  if (graph.problem.bias) operands.bias = pointer(graph.bias);
  const cudaError_t error = deeper::fake_cuda::LaunchNaive(
      ToString(graph.problem), std::shared_ptr<deeper::CudaPlan>(*std::move(made)), operands, handle->stream);
  return error == cudaSuccess ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_EXECUTION_FAILED;
}

}  // extern "C"
