// Where tensors live and ops run. One Device per process and rank.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/base/buffer.h"
#include "kernels/base/tensor.h"

namespace deeper {

enum class DeviceType { kCpu, kCuda };

// An order of work on a device. On the CPU everything is done when the call returns, and `native` is null;
// on CUDA `native` is the cudaStream_t.
struct Stream {
  void* native = nullptr;
};

// One launch, for profiles and for the roofline.
struct Launch {
  const char* name = "";  // static
  int64_t bytes = 0;      // that it reads and writes at the least
  int64_t macs = 0;
};

// One launch as it ran.
struct ProfiledLaunch {
  std::string scope;  // the device's Annotate before it
  Launch launch;
  double start_ms = 0;  // since the first one of the profile began
  double duration_ms = 0;
};

// A copy from the device to the host that is under way.
class Download {
 public:
  virtual ~Download() = default;
  virtual void Wait() = 0;  // returns when it has arrived
};

// Work that is enqueued again and again, always the same: all that changes from run to run, it reads from
// memory. CUDA runs it the first time, records it the second, and replays it as one graph from then on;
// elsewhere it just runs.
class Recording {
 public:
  virtual ~Recording() = default;
  virtual void Run(const std::function<void()>& work) = 0;
};

// One that just runs, every time.
std::unique_ptr<Recording> MakePlainRecording();

class Device {
 public:
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  virtual DeviceType type() const = 0;
  // For people and for reports: model, cores or SMs, instruction set.
  virtual std::string Describe() const = 0;
  // What tells the GPU of this rank from others of its machine, and is the same where ranks share one: the
  // address on the PCI bus. Empty where there is no GPU.
  virtual std::string address() const { return ""; }
  // Channels per block of an activation: 16 with AVX-512, 8 below; 1 where activations are kNhwc.
  virtual int64_t channel_block() const = 0;
  // Zeroed device memory. An empty Buffer when there is not enough.
  virtual Buffer Allocate(size_t bytes) = 0;
  // Zeroed host memory that Copy reads and writes without waiting. An empty Buffer when there is not enough.
  virtual Buffer AllocateStaging(size_t bytes) { return AllocateHost(bytes); }
  // Bytes that could still be allocated, as far as the system tells.
  virtual size_t AvailableBytes() const = 0;
  virtual Stream stream() const = 0;
  virtual void Synchronize() = 0;
  // Between host and device, or within the device, on the device's stream; on the CPU a memcpy. Host memory
  // must stay as it is until Synchronize.
  virtual void Copy(void* to, const void* from, size_t bytes) = 0;
  // As Copy, but beside the work on the device's stream: work that is enqueued after JoinUploads finds it
  // done, and after WaitForUploads the host memory may change. Nobody may be using `to`.
  virtual void Upload(void* to, const void* from, size_t bytes) { Copy(to, from, bytes); }
  virtual void JoinUploads() {}
  virtual void WaitForUploads() {}
  // The other way: finds what was enqueued before done, and holds up nothing that is enqueued after. `to`
  // comes from AllocateStaging. Not to be recorded.
  virtual std::unique_ptr<Download> StartDownload(void* to, const void* from, size_t bytes);
  virtual std::unique_ptr<Recording> MakeRecording();
  // Names the work that is enqueued next, in profiles.
  virtual void Annotate(const std::string& name) { (void)name; }
  // Times every launch from one call to the other; on the CPU there are none. Meanwhile recordings just run.
  // Where the host is slower than the device, the time of a launch includes the wait for it.
  virtual void StartProfile() {}
  virtual std::vector<ProfiledLaunch> StopProfile() { return {}; }

  // The layout ops exchange feature maps in: kBlocked on the CPU, kNhwc on CUDA. Vectors (h = w = 1 after
  // pooling or a linear layer) are kNchw.
  TensorDesc FeatureMap(const Shape& shape, DType dtype) const {
    const int64_t block = channel_block();
    return {shape, dtype, block > 1 ? Layout::kBlocked : Layout::kNhwc, block};
  }
  // The layout of a network's input: kNchw on the CPU. On CUDA one block of 16 bytes a pixel, the rest of it
  // zeros: NHWC with the channels that tensor cores want.
  TensorDesc Images(const Shape& shape, DType dtype) const {
    if (type() == DeviceType::kCpu) return {shape, dtype};
    return {shape, dtype, Layout::kBlocked, static_cast<int64_t>(16 / SizeOf(dtype))};
  }
  // Whether ops want OpBinding::narrow_params where activations are bf16.
  bool wants_narrow_params() const { return type() == DeviceType::kCuda; }

 protected:
  Device() = default;
};

// Cores among the CPUs that this process may run on: hyperthreads of one core count once.
int AvailableCores();

// `threads` > 0: OpenMP threads of every parallel loop and oneDNN primitive; 0: one per core the process may
// use. OpenMP keeps this number for each calling thread: make the device on the thread that runs the ops.
std::unique_ptr<Device> MakeCpuDevice(int threads = 0);

struct CudaOptions {
  int index = 0;               // of the GPUs this process sees, counted round where it is beyond the last
  bool deterministic = false;  // library kernels that give the same bits every time only
  bool graphs = true;          // false: recordings just run, every time
  std::string plan_cache;      // file of tuned plans; empty: none is read or written
};

// Keeps this thread, and those it makes later, to the cores near the GPU. Unimplemented: built without CUDA.
// NotFound: no GPU. FailedPrecondition: a driver too old for this build, or a GPU it has no code for.
// Each says what to do.
absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(const CudaOptions& options);

}  // namespace deeper
