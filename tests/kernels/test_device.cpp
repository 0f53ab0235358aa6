#include "tests/kernels/test_device.h"

#include <cstdlib>
#include <iostream>
#include <string>

#include "kernels/base/own_kernels.h"

namespace deeper::testing {
namespace {

constexpr int kNotRun = 77;  // ctest's SKIP_RETURN_CODE

}  // namespace

std::unique_ptr<Device> MakeTestDevice() {
  const char* const name = std::getenv("DEEPER_TEST_DEVICE");
  const std::string wanted = name == nullptr ? "cpu" : name;
  // The device sets the number of threads itself. ThreadSanitizer needs one, since libgomp is not
  // instrumented.
  const char* const omp_threads = std::getenv("OMP_NUM_THREADS");
  const int threads = omp_threads == nullptr ? 0 : std::atoi(omp_threads);
  if (wanted == "cpu") return MakeCpuDevice(threads);
  if (wanted == "cpu-blocked") return MakeCpuDevice(threads, CpuLayout::kBlocked);
  if (wanted == "cpu-nhwc") return MakeCpuDevice(threads, CpuLayout::kNhwc);
#ifdef DEEPER_CUDA
  if (wanted == "cuda-host") return MakeHostCudaDevice();
#endif
  if (wanted == "cuda") {
    CudaOptions options;
    options.deterministic = true;
    const char* const own_kernels = std::getenv("DEEPER_OWN_KERNELS");
    TrialOptions trials;
    if (own_kernels != nullptr) trials.own_kernels = ValueOf<OwnKernels>(own_kernels).value();
    auto device = MakeCudaDevice(options, trials);
    if (device.ok()) return *std::move(device);
    std::cerr << "not run: " << device.status().message() << std::endl;
    std::_Exit(kNotRun);
  }
  std::cerr << "DEEPER_TEST_DEVICE=" << wanted << ": this build does not support it" << std::endl;
  std::_Exit(1);
}

Device& TestDevice() {
  // Not destroyed: after main, CUDA and its libraries may be gone.
  static Device* const device = MakeTestDevice().release();
  return *device;
}

}  // namespace deeper::testing
