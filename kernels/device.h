// Where tensors live and ops run. One Device per process and rank.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "kernels/buffer.h"
#include "kernels/tensor.h"

namespace deeper {

enum class DeviceType { kCpu, kCuda };

// An order of work on a device. On the CPU everything is done when the call returns, and `native` is null;
// on CUDA `native` is the cudaStream_t.
struct Stream {
  void* native = nullptr;
};

class Device {
 public:
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  virtual DeviceType type() const = 0;
  // For people and for reports: model, cores or SMs, instruction set.
  virtual std::string Describe() const = 0;
  // Channels per block of an activation: 16 with AVX-512, 8 below; 1 where activations are kNhwc.
  virtual int64_t channel_block() const = 0;
  // Zeroed device memory. An empty Buffer when there is not enough.
  virtual Buffer Allocate(size_t bytes) = 0;
  // Bytes that could still be allocated, as far as the system tells.
  virtual size_t AvailableBytes() const = 0;
  virtual Stream stream() const = 0;
  virtual void Synchronize() = 0;
  // Between host and device, on the device's stream; on the CPU a memcpy.
  virtual void Copy(void* to, const void* from, size_t bytes) = 0;

  // The layout ops exchange feature maps in: kBlocked on the CPU, kNhwc on CUDA. Vectors (h = w = 1 after
  // pooling or a linear layer) and network inputs are kNchw.
  TensorDesc FeatureMap(const Shape& shape, DType dtype) const {
    const int64_t block = channel_block();
    return {shape, dtype, block > 1 ? Layout::kBlocked : Layout::kNhwc, block};
  }

 protected:
  Device() = default;
};

// Cores among the CPUs that this process may run on: hyperthreads of one core count once.
int AvailableCores();

// `threads` > 0: OpenMP threads of every parallel loop and oneDNN primitive; 0: one per core the process may
// use. OpenMP keeps this number for each calling thread: make the device on the thread that runs the ops.
std::unique_ptr<Device> MakeCpuDevice(int threads = 0);

}  // namespace deeper
