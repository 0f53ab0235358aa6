// The device that stores tensors and runs ops. One Device per process and rank.
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

// kEmulated: conversions to fp32 and back, slower than fp32.
enum class Bf16Support { kNone, kEmulated, kNative };

// The layout of feature maps on the CPU. kBlocked has 16 channels per block with AVX-512 and 8 below. kAuto
// is kNhwc for bf16 on processors with AMX, whose kernels in oneDNN take NHWC only, and else kBlocked.
enum class CpuLayout { kAuto, kBlocked, kNhwc };

// A queue of work on a device. On the CPU all work is done when the call returns, and `native` is null. On
// CUDA `native` is the cudaStream_t.
struct Stream {
  void* native = nullptr;
};

// One kernel launch, or one pass on the CPU, for profiles and for the roofline.
struct Launch {
  const char* name = "";  // static storage
  int64_t bytes = 0;      // minimum that it reads and writes
  int64_t macs = 0;
};

// What a device reaches at best: the roofline (Williams et al. 2009).
struct PeakRates {
  double bytes_per_second = 0;  // of a copy: read and written
  double bf16_flops = 0, fp32_flops = 0;
};

// One launch with its measured time.
struct ProfiledLaunch {
  std::string scope;  // name of the last Annotate before the launch
  Launch launch;
  double start_ms = 0;  // since the first launch of the profile
  double duration_ms = 0;
};

// A copy in progress from the device to the host.
class Download {
 public:
  virtual ~Download() = default;
  virtual void Wait() = 0;  // returns when the copy is complete
};

// Measures how long the device waits for the host.
class IdleTimer {
 public:
  virtual ~IdleTimer() = default;
  virtual void Start() = 0;  // the device has all the work that it gets before Stop
  virtual void Stop() = 0;
  // After Synchronize: the time from the end of that work, or from Start if that is later, to Stop. About 0
  // if the work ended after Stop.
  virtual double Milliseconds() = 0;
};

// Work that is enqueued repeatedly without change. Everything that varies between runs is read from memory.
// CUDA runs it the first time, records it the second time, and replays it as one graph afterwards. Other
// devices run it directly every time.
class Recording {
 public:
  virtual ~Recording() = default;
  virtual void Run(const std::function<void()>& work) = 0;
};

// A Recording that runs the work directly every time.
std::unique_ptr<Recording> MakePlainRecording();

class Device {
 public:
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  virtual DeviceType type() const = 0;
  // For display and reports: model, cores or SMs, instruction set.
  virtual std::string Describe() const = 0;
  // Identifies the GPU of this rank within its machine by its PCI bus address. Ranks that share a GPU have
  // the same address. Empty without a GPU.
  virtual std::string address() const { return ""; }
  // Identifies the memory of this rank's GPU within the machine: the UUID of the GPU, or of its MIG instance.
  // The instances of a GPU have memory of their own, and the same address. Empty without a GPU.
  virtual std::string uuid() const { return ""; }
  // Channels per block of an activation of this type; 1 where activations are kNhwc.
  virtual int64_t channel_block(DType dtype) const = 0;
  // How the device computes with bf16 operands.
  virtual Bf16Support bf16_support() const { return Bf16Support::kNative; }
  // Zeroed device memory. Returns an empty Buffer when there is not enough.
  virtual Buffer Allocate(size_t bytes) = 0;
  // Zeroed host memory that Copy accesses asynchronously. Returns an empty Buffer when there is not enough.
  virtual Buffer AllocateStaging(size_t bytes) { return AllocateHost(bytes); }
  // Bytes that can still be allocated, as far as the system reports them.
  virtual size_t AvailableBytes() const = 0;
  virtual Stream stream() const = 0;
  virtual void Synchronize() = 0;
  // Copies between host and device, or within the device, on the device's stream; on the CPU this is a
  // memcpy. Host memory must not change until Synchronize.
  virtual void Copy(void* to, const void* from, size_t bytes) = 0;
  // Like Copy, but runs concurrently with the work on the device's stream. Work that is enqueued after
  // JoinUploads sees the copied data. The host memory may change after WaitForUploads. No other work may use
  // `to`.
  virtual void Upload(void* to, const void* from, size_t bytes) { Copy(to, from, bytes); }
  // work() launches kernels, and nothing else. They run after the uploads so far, like these concurrently
  // with the work on the device's stream, and JoinUploads and WaitForUploads include them.
  virtual void RunAfterUploads(const std::function<void()>& work) { work(); }
  virtual void JoinUploads() {}
  virtual void WaitForUploads() {}
  // Copies from the device to the host. The copy waits for work enqueued before it and does not delay work
  // enqueued after it. `to` comes from AllocateStaging. Must not be called inside a Recording.
  virtual std::unique_ptr<Download> StartDownload(void* to, const void* from, size_t bytes);
  virtual std::unique_ptr<Recording> MakeRecording();
  virtual std::unique_ptr<IdleTimer> MakeIdleTimer();
  // Names the work that is enqueued next in profiles.
  virtual void Annotate(const std::string& name) { (void)name; }
  // Times every launch between the two calls. Recordings are not replayed meanwhile. On CUDA, where the host
  // is slower than the device, the time of a launch includes the wait for the host. On the CPU a launch is a
  // oneDNN primitive or one of our own passes, and both calls come from the thread that runs the ops.
  virtual void StartProfile() {}
  virtual std::vector<ProfiledLaunch> StopProfile() { return {}; }

  // The layout in which ops exchange feature maps: kBlocked or kNhwc on the CPU (CpuLayout), kNhwc on CUDA.
  // Vectors (h = w = 1 after pooling or a linear layer) are kNchw.
  TensorDesc FeatureMap(const Shape& shape, DType dtype) const {
    const int64_t block = channel_block(dtype);
    return {shape, dtype, block > 1 ? Layout::kBlocked : Layout::kNhwc, block};
  }
  // The layout of a network's input. On the CPU it is kNhwc where feature maps are, else kNchw. On CUDA it is
  // NHWC in blocks of 16 bytes per pixel, padded with zeros to the number of channels that tensor cores need.
  TensorDesc Images(const Shape& shape, DType dtype) const {
    if (type() == DeviceType::kCpu)
      return {shape, dtype, channel_block(dtype) > 1 ? Layout::kNchw : Layout::kNhwc};
    return {shape, dtype, Layout::kBlocked, static_cast<int64_t>(16 / SizeOf(dtype))};
  }
  // Whether ops need OpBinding::narrow_params where activations are bf16.
  bool wants_narrow_params() const { return type() == DeviceType::kCuda; }

 protected:
  Device() = default;
};

// Number of physical cores among the CPUs that this process may run on. Hyperthreads of one core count once.
int AvailableCores();

// Of the library that CPU devices use, as loaded: "2.6.3".
std::string OneDnnVersion();

// `threads` is the number of OpenMP threads of every parallel loop and oneDNN primitive; 0: one per available
// core. OpenMP keeps this number per calling thread, so make the device on the thread that runs the ops.
std::unique_ptr<Device> MakeCpuDevice(int threads = 0, CpuLayout layout = CpuLayout::kAuto);

struct CudaOptions {
  int index = 0;               // among the GPUs that this process sees, modulo their number
  bool deterministic = false;  // uses only library kernels with reproducible results
  bool graphs = true;          // false: recordings run directly every time
  bool early_starts = true;    // of kernels in recordings (kernels/cuda/base/early_start.h)
  std::string plan_cache;      // file of tuned plans; empty: no file is read or written
};

// Restricts this thread, and the threads that it starts later, to the cores near the GPU. Errors:
// Unimplemented if built without CUDA, NotFound without a GPU, FailedPrecondition if the driver is too old
// for this build or the build has no code for the GPU. Each message says what to do.
absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(const CudaOptions& options);

}  // namespace deeper
