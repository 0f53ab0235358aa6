// The peak rates of GPUs, and the minimum time of work that follows: the roofline (Williams et al. 2009).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/base/device.h"
#include "kernels/base/tensor.h"

namespace deeper {

struct GpuSpec {
  const char* flag;  // --gpu
  const char* name;  // in CUDA
  // Measured if a measurement exists, else the data sheet's figure minus the usual loss.
  double bytes_per_second;  // of a copy: read and written
  double bf16_flops, fp32_flops;
  // For DevicePropertiesJson.
  int compute_capability;  // 900
  int multiprocessors;
  int64_t shared_bytes;  // that a block may request
  int64_t l2_bytes, memory_bytes;
  int64_t clock_khz, memory_clock_khz;

  PeakRates peak() const { return {bytes_per_second, bf16_flops, fp32_flops}; }
};

std::vector<std::string> GpuNames();  // the values of --gpu
// InvalidArgument lists the known GPUs.
absl::StatusOr<GpuSpec> FindGpu(const std::string& flag);
// The GPU with this Device::Describe(). nullptr: not known.
const GpuSpec* GpuOf(std::string_view description);

// cuDNN's description of the GPU (MakePlanningDevice), reconstructed without the GPU.
std::string DevicePropertiesJson(const GpuSpec& gpu);

// The larger of the time to move the bytes and the time to compute, at this fraction of the peak of `dtype`.
double FloorMicroseconds(const Launch& launch, const PeakRates& peak, DType dtype, double efficiency = 1);
inline double FloorMicroseconds(const Launch& launch, const GpuSpec& gpu, DType dtype,
                                double efficiency = 1) {
  return FloorMicroseconds(launch, gpu.peak(), dtype, efficiency);
}

}  // namespace deeper
