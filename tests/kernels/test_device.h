// The device of the op tests: $DEEPER_TEST_DEVICE is cpu (default), cpu-blocked, cpu-nhwc, cuda-host or cuda.
// $DEEPER_OWN_KERNELS is as --own_kernels.
#pragma once

#include <memory>
#include <vector>

#include "kernels/base/device.h"

namespace deeper::testing {

Device& TestDevice();
// Returns another device of the same kind.
std::unique_ptr<Device> MakeTestDevice();

// cuda-host runs every CUDA op on host memory. It calls functors sequentially and replaces cuDNN and cuBLASLt
// by naive loops. It checks the layouts and arithmetic of a CUDA network, but not the libraries and launches.
// Needs a build with CUDA.
std::unique_ptr<Device> MakeHostCudaDevice();

// One array on a device.
template <class T>
class DeviceArray {
 public:
  DeviceArray(size_t count, Device& device) : device_(device), memory_(device.Allocate(count * sizeof(T))) {}
  DeviceArray(const std::vector<T>& values, Device& device) : DeviceArray(values.size(), device) {
    Write(values);
  }

  T* data() const { return memory_.as<T>(); }
  void Write(const std::vector<T>& values) {
    device_.Copy(memory_.data(), values.data(), memory_.bytes());
    device_.Synchronize();
  }
  std::vector<T> Read() const {
    std::vector<T> values(memory_.bytes() / sizeof(T));
    device_.Copy(values.data(), memory_.data(), memory_.bytes());
    device_.Synchronize();
    return values;
  }

 private:
  Device& device_;
  Buffer memory_;
};

}  // namespace deeper::testing
