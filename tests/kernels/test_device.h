// The device that the tests of ops run on: $DEEPER_TEST_DEVICE is cpu (if unset), cuda-host or cuda.
#pragma once

#include <memory>
#include <vector>

#include "kernels/base/device.h"

namespace deeper::testing {

Device& TestDevice();
// Another one of the same kind.
std::unique_ptr<Device> MakeTestDevice();

// cuda-host: every CUDA op on host memory, its functors called one after the other and naive loops in place
// of cuDNN and cuBLASLt. It checks all of a CUDA network, layouts and arithmetic, but the libraries and the
// launches. Built with CUDA only.
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
