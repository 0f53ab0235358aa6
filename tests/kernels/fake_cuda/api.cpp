// The calls of the CUDA run time that deeper makes. One that is missing here fails to link.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/base/early_start.h"
#include "tests/kernels/fake_cuda/runtime.h"

using namespace deeper::fake_cuda;

namespace {

thread_local cudaError_t g_last_error = cudaSuccess;
thread_local int g_device = 0;

cudaError_t Return(cudaError_t error) {
  if (error != cudaSuccess && error != cudaErrorNotReady) g_last_error = error;
  return error;
}

// Runs body() unless a script has the call fail.
template <class Body>
cudaError_t Call(const char* name, const Body& body) {
  Runtime& runtime = Runtime::Get();
  std::unique_lock lock(runtime.mutex);
  const cudaError_t scripted = runtime.Enter(lock, name);
  if (scripted != cudaSuccess) return Return(scripted);
  const cudaError_t error = body(runtime);  // which may run work that loses the context
  return Return(runtime.lost() != cudaSuccess ? runtime.lost() : error);
}

// The same for what no capture may contain.
template <class Body>
cudaError_t UncapturedCall(const char* name, const Body& body) {
  return Call(name, [&](Runtime& runtime) {
    const cudaError_t forbidden = runtime.Forbidden(name);
    return forbidden != cudaSuccess ? forbidden : body(runtime);
  });
}

// Runs body(stream); the legacy stream is none of ours.
template <class Body>
cudaError_t WithStream(Runtime& runtime, cudaStream_t handle, const Body& body) {
  if (handle == nullptr) {
    const cudaError_t forbidden = runtime.Forbidden("the legacy stream");
    if (forbidden != cudaSuccess) return cudaErrorStreamCaptureImplicit;
    Fail("work for the legacy stream, which other streams here do not wait for");
  }
  Stream* const stream = runtime.Find(handle);
  if (stream == nullptr) return Runtime::Error(cudaErrorInvalidResourceHandle, "no such stream");
  if (stream->device != g_device) {
    return Runtime::Error(
        cudaErrorInvalidResourceHandle,
        absl::StrCat("a stream of device ", stream->device, " where device ", g_device, " is current"));
  }
  return body(*stream);
}

template <class Body>
cudaError_t WithEvent(Runtime& runtime, cudaEvent_t handle, const Body& body) {
  Event* const event = runtime.Find(handle);
  if (event == nullptr) Fail("no such event, or no more");
  if (event->device != g_device)
    return Runtime::Error(
        cudaErrorInvalidResourceHandle,
        absl::StrCat("an event of device ", event->device, " where device ", g_device, " is current"));
  return body(*event);
}

template <class Handle>
Handle NewHandle(Runtime& runtime, size_t& number) {
  number = runtime.next_handle++;
  return reinterpret_cast<Handle>(number);
}

cudaError_t NewStream(Runtime& runtime, cudaStream_t* stream, unsigned int flags) {
  if (flags != cudaStreamNonBlocking) Fail("a stream that waits for the legacy stream");
  size_t number = 0;
  *stream = NewHandle<cudaStream_t>(runtime, number);
  auto made = std::make_unique<Stream>();
  made->number = static_cast<int>(number);
  made->device = g_device;
  made->priority = runtime.NewPriority();
  runtime.streams[number] = std::move(made);
  return cudaSuccess;
}

const char* NameOf(Place place) {
  return place == Place::kDevice ? "device" : place == Place::kPinned ? "pinned memory" : "pageable memory";
}

cudaError_t Copy(Runtime& runtime, Stream& stream, void* to, const void* from, size_t bytes) {
  if (to == nullptr || from == nullptr) Fail("a copy from or to no memory");
  const Place source = runtime.memory.PlaceOf(from, bytes, stream.device),
              target = runtime.memory.PlaceOf(to, bytes, stream.device);
  if (stream.capture != nullptr && (source == Place::kPageable || target == Place::kPageable))
    return runtime.Forbidden("a copy of pageable memory");
  Node node;
  node.name = absl::StrCat("a copy of ", bytes, " bytes from ", NameOf(source), " to ", NameOf(target));
  node.run = [to, from, bytes] { std::memcpy(to, from, bytes); };
  if (source != Place::kDevice && target != Place::kDevice) Fail(node.name);
  if (source != Place::kDevice) node.host = HostUse{const_cast<void*>(from), bytes, false};
  if (target != Place::kDevice) node.host = HostUse{to, bytes, true};
  return runtime.Add(stream, std::move(node));
}

}  // namespace

namespace deeper::fake_cuda {

void Reset(const Options& options) {
  Runtime& runtime = Runtime::Get();
  const std::lock_guard lock(runtime.mutex);
  runtime.Reset(options);
  g_last_error = cudaSuccess;
  g_device = 0;
}

std::map<std::string, int> Calls() {
  Runtime& runtime = Runtime::Get();
  const std::lock_guard lock(runtime.mutex);
  return runtime.calls;
}

int CurrentDevice() {
  return g_device;
}

OwnKernels OwnKernelsAre() {
  return Runtime::Get().options().own_kernels;
}

void Lose(cudaError_t error) {
  Runtime::Get().Lose(error);
}

cudaError_t Launch(cudaStream_t handle, const std::string& name, std::function<void()> run) {
  return Call("launch", [&](Runtime& runtime) {
    return WithStream(runtime, handle, [&](Stream& stream) {
      return runtime.AddKernel(stream, {.name = name, .run = std::move(run)});
    });
  });
}

cudaError_t LaunchOwn(cudaStream_t handle, const std::string& name, std::function<void()> run) {
  const bool early = MayStartEarly(handle);
  const cudaError_t error = Call("launch", [&](Runtime& runtime) {
    return WithStream(runtime, handle, [&](Stream& stream) {
      return runtime.AddKernel(stream, {.name = name, .run = std::move(run), .own = true}, early);
    });
  });
  if (error == cudaSuccess) KernelLaunched(handle);
  return error;
}

}  // namespace deeper::fake_cuda

extern "C" {

cudaError_t cudaGetLastError() {
  return std::exchange(g_last_error, cudaSuccess);
}

cudaError_t cudaDriverGetVersion(int* version) {
  return Call("cudaDriverGetVersion", [&](Runtime&) {
    *version = CUDART_VERSION;
    return cudaSuccess;
  });
}
cudaError_t cudaGetDeviceCount(int* count) {
  return Call("cudaGetDeviceCount", [&](Runtime& runtime) {
    *count = runtime.options().devices;
    return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
  });
}
cudaError_t cudaGetDevice(int* device) {
  return Call("cudaGetDevice", [&](Runtime&) {
    *device = g_device;
    return cudaSuccess;
  });
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return Call("cudaGetDeviceProperties", [&](Runtime& runtime) {
    if (device >= runtime.options().devices) return cudaErrorInvalidDevice;
    *properties = {};
    const std::string name = runtime.options().unlike ? absl::StrCat("Fake GPU ", device) : "Fake GPU";
    std::strncpy(properties->name, name.c_str(), sizeof properties->name - 1);
    properties->uuid.bytes[0] = static_cast<char>(device);
    properties->major = runtime.options().capability / 10;
    properties->minor = runtime.options().capability % 10;
    properties->multiProcessorCount = 132;
    properties->totalGlobalMem = runtime.options().memory_bytes;
    return cudaSuccess;
  });
}
cudaError_t cudaSetDevice(int device) {
  return Call("cudaSetDevice", [&](Runtime& runtime) {
    if (device >= runtime.options().devices) return cudaErrorInvalidDevice;
    g_device = device;
    return cudaSuccess;
  });
}
cudaError_t cudaDeviceGetPCIBusId(char* address, int bytes, int device) {
  return Call("cudaDeviceGetPCIBusId", [&](Runtime&) {
    std::snprintf(address, static_cast<size_t>(bytes), "FFFF:FF:%02X.0", device & 0xFF);
    return cudaSuccess;
  });
}
cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  return UncapturedCall("cudaMemGetInfo", [&](Runtime& runtime) {
    *total = runtime.options().memory_bytes;
    const auto& claimed = runtime.options().claimed_free;
    const auto device = static_cast<size_t>(g_device);
    *available = device < claimed.size() ? claimed[device] : *total - runtime.memory.used(g_device);
    return cudaSuccess;
  });
}

cudaError_t cudaMalloc(void** data, size_t bytes) {
  return UncapturedCall("cudaMalloc", [&](Runtime& runtime) {
    *data = runtime.memory.Allocate(bytes, g_device, runtime.options().memory_bytes);
    return *data == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
  });
}
cudaError_t cudaFree(void* data) {  // waits for the device, as the real one does
  return UncapturedCall("cudaFree", [&](Runtime& runtime) {
    if (data == nullptr) return cudaSuccess;
    runtime.DrainDevice(g_device);
    if (!runtime.memory.Free(data)) Fail("cudaFree of what is not allocated, or not any more");
    return cudaSuccess;
  });
}
cudaError_t cudaMallocHost(void** data, size_t bytes) {
  return UncapturedCall("cudaMallocHost", [&](Runtime& runtime) {
    *data = runtime.memory.AllocatePinned(bytes);
    return cudaSuccess;
  });
}
cudaError_t cudaFreeHost(void* data) {
  return UncapturedCall("cudaFreeHost", [&](Runtime& runtime) {
    if (data == nullptr) return cudaSuccess;
    runtime.CheckUnused(data, runtime.memory.PinnedBytes(data), "cudaFreeHost");
    if (!runtime.memory.FreePinned(data)) Fail("cudaFreeHost of what is not allocated, or not any more");
    return cudaSuccess;
  });
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t handle) {
  return Call("cudaMemcpyAsync", [&](Runtime& runtime) {
    if (kind != cudaMemcpyDefault) Fail("a copy with a direction of its own");
    return WithStream(runtime, handle,
                      [&](Stream& stream) { return Copy(runtime, stream, to, from, bytes); });
  });
}
cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t handle) {
  return Call("cudaMemsetAsync", [&](Runtime& runtime) {
    return WithStream(runtime, handle, [&](Stream& stream) {
      if (runtime.memory.PlaceOf(data, bytes, stream.device) != Place::kDevice)
        Fail("cudaMemsetAsync of host memory");
      return runtime.Add(stream, {.name = "memset", .run = [=] { std::memset(data, value, bytes); }});
    });
  });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int flags) {
  return Call("cudaStreamCreateWithFlags",
              [&](Runtime& runtime) { return NewStream(runtime, stream, flags); });
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned int flags, int priority) {
  return Call("cudaStreamCreateWithPriority", [&](Runtime& runtime) {
    const cudaError_t made = NewStream(runtime, stream, flags);
    if (made == cudaSuccess) runtime.Find(*stream)->urgent = priority != 0;
    return made;
  });
}
cudaError_t cudaStreamDestroy(cudaStream_t handle) {  // what is in it still runs
  return Call("cudaStreamDestroy", [&](Runtime& runtime) {
    Stream* const stream = runtime.Find(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (stream->capture != nullptr) Fail("cudaStreamDestroy of a stream that is captured");
    stream->destroyed = true;
    return cudaSuccess;
  });
}
cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return UncapturedCall("cudaStreamSynchronize", [&](Runtime& runtime) {
    return WithStream(runtime, handle, [&](Stream& stream) {
      runtime.Drain(stream);
      return cudaSuccess;
    });
  });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned int) {
  return Call("cudaStreamWaitEvent", [&](Runtime& runtime) {
    return WithStream(runtime, handle, [&](Stream& stream) {
      return WithEvent(runtime, event_handle, [&](Event& event) { return runtime.Wait(stream, event); });
    });
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* handle, unsigned int flags) {
  return Call("cudaEventCreateWithFlags", [&](Runtime& runtime) {
    size_t number = 0;
    *handle = NewHandle<cudaEvent_t>(runtime, number);
    runtime.events[number] = std::make_unique<Event>();
    runtime.events[number]->device = g_device;
    runtime.events[number]->timing = (flags & cudaEventDisableTiming) == 0;
    return cudaSuccess;
  });
}
cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  return Call("cudaEventDestroy", [&](Runtime& runtime) {
    if (runtime.events.erase(reinterpret_cast<size_t>(handle)) == 0) Fail("cudaEventDestroy of no event");
    return cudaSuccess;
  });
}
cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream_handle) {
  return Call("cudaEventRecord", [&](Runtime& runtime) {
    return WithStream(runtime, stream_handle, [&](Stream& stream) {
      return WithEvent(runtime, handle, [&](Event& event) { return runtime.Record(event, stream); });
    });
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  return UncapturedCall("cudaEventSynchronize", [&](Runtime& runtime) {
    return WithEvent(runtime, handle, [&](Event& event) {
      if (event.capture != nullptr)
        return Runtime::Error(cudaErrorCapturedEvent, "the host waits for an event of a capture");
      if (event.marker == nullptr) Fail("the host waits for an event that was never recorded");
      runtime.Force(std::shared_ptr<Task>(event.marker));
      return cudaSuccess;
    });
  });
}
cudaError_t cudaEventQuery(cudaEvent_t handle) {
  return UncapturedCall("cudaEventQuery", [&](Runtime& runtime) {
    return WithEvent(runtime, handle, [&](Event& event) {
      if (event.capture != nullptr)
        return Runtime::Error(cudaErrorCapturedEvent, "the host asks for an event of a capture");
      if (event.marker == nullptr) Fail("the host asks for an event that was never recorded");
      if (event.marker->done) return cudaSuccess;
      runtime.Force(std::shared_ptr<Task>(event.marker));  // by the next time
      return cudaErrorNotReady;
    });
  });
}
// In steps of the fake: positive, and no measure of anything.
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  return UncapturedCall("cudaEventElapsedTime", [&](Runtime& runtime) {
    return WithEvent(runtime, from, [&](Event& first) {
      return WithEvent(runtime, to, [&](Event& last) {
        if (!first.timing || !last.timing)
          return Runtime::Error(cudaErrorInvalidResourceHandle, "an event without a time");
        if (first.marker == nullptr || last.marker == nullptr)
          Fail("the time of an event that was never recorded");
        if (!first.marker->done || !last.marker->done)
          return Runtime::Error(cudaErrorNotReady, "the time of an event to come");
        *milliseconds = 1e-3f * static_cast<float>(last.marker->tick - first.marker->tick);
        return cudaSuccess;
      });
    });
  });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  return Call("cudaStreamBeginCapture", [&](Runtime& runtime) {
    return WithStream(runtime, handle, [&](Stream& stream) { return runtime.BeginCapture(stream, mode); });
  });
}
cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  return Call("cudaStreamEndCapture", [&](Runtime& runtime) {
    return WithStream(runtime, handle, [&](Stream& stream) {
      std::shared_ptr<const Graph> captured;
      const cudaError_t error = runtime.EndCapture(stream, captured);
      if (error != cudaSuccess) return error;
      size_t number = 0;
      *graph = NewHandle<cudaGraph_t>(runtime, number);
      runtime.graphs[number] = std::move(captured);
      return cudaSuccess;
    });
  });
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, cudaStreamCaptureStatus* status,
                                     unsigned long long*, cudaGraph_t*, const cudaGraphNode_t** nodes,
                                     const cudaGraphEdgeData** edges, size_t* count) {
  return Call("cudaStreamGetCaptureInfo", [&](Runtime& runtime) {
    return WithStream(runtime, handle, [&](Stream& stream) {
      *status = stream.capture == nullptr ? cudaStreamCaptureStatusNone
                : stream.capture->invalid ? cudaStreamCaptureStatusInvalidated
                                          : cudaStreamCaptureStatusActive;
      stream.handles.clear();
      for (const size_t node : stream.tail)
        stream.handles.push_back(reinterpret_cast<cudaGraphNode_t>(node + 1));
      *nodes = stream.handles.data();
      *edges = nullptr;
      *count = stream.handles.size();
      return cudaSuccess;
    });
  });
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags) {
  return UncapturedCall("cudaGraphInstantiate", [&](Runtime& runtime) {
    const auto found = runtime.graphs.find(reinterpret_cast<size_t>(graph));
    if (found == runtime.graphs.end()) Fail("no such graph, or no more");
    const bool urgent = std::ranges::any_of(*found->second, &Node::urgent);
    if (urgent && (flags & cudaGraphInstantiateFlagUseNodePriority) == 0) Fail("a graph without priorities");
    size_t number = 0;
    *exec = NewHandle<cudaGraphExec_t>(runtime, number);
    runtime.execs[number] = std::make_unique<GraphExec>(GraphExec{found->second, nullptr});
    return cudaSuccess;
  });
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return Call("cudaGraphDestroy", [&](Runtime& runtime) {
    if (runtime.graphs.erase(reinterpret_cast<size_t>(graph)) == 0) Fail("cudaGraphDestroy of no graph");
    return cudaSuccess;
  });
}
cudaError_t cudaGraphUpload(cudaGraphExec_t handle, cudaStream_t stream_handle) {
  return UncapturedCall("cudaGraphUpload", [&](Runtime& runtime) {
    if (runtime.Find(handle) == nullptr) Fail("no such graph, or no more");
    return WithStream(runtime, stream_handle, [&](Stream&) { return cudaSuccess; });
  });
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t handle, cudaStream_t stream_handle) {
  return UncapturedCall("cudaGraphLaunch", [&](Runtime& runtime) {
    GraphExec* const exec = runtime.Find(handle);
    if (exec == nullptr) Fail("no such graph, or no more");
    return WithStream(runtime, stream_handle, [&](Stream& stream) {
      runtime.Launch(*exec, stream);
      return cudaSuccess;
    });
  });
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t handle) {  // one that is under way still ends
  return Call("cudaGraphExecDestroy", [&](Runtime& runtime) {
    if (runtime.execs.erase(reinterpret_cast<size_t>(handle)) == 0) Fail("cudaGraphExecDestroy of no graph");
    return cudaSuccess;
  });
}

}  // extern "C"
