// What GPUs can do at best, and so the least time that work takes: the roofline (Williams et al. 2009).
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
  const char* name;  // as CUDA calls it
  // Achievable, where somebody measured it, else what the data sheet promises, less what such promises cost.
  double bytes_per_second;  // of a copy: read and written
  double bf16_flops, fp32_flops;
  // For DevicePropertiesJson.
  int compute_capability;  // 900
  int multiprocessors;
  int64_t shared_bytes;  // that a block may ask for
  int64_t l2_bytes, memory_bytes;
  int64_t clock_khz, memory_clock_khz;
};

std::vector<std::string> GpuNames();  // as --gpu has them
// InvalidArgument lists the known ones.
absl::StatusOr<GpuSpec> FindGpu(const std::string& flag);
// Of a device, from its Device::Describe(). nullptr: not known.
const GpuSpec* GpuOf(std::string_view description);

// What cuDNN would write about the GPU (MakePlanningDevice): reconstructed, no GPU wrote it.
std::string DevicePropertiesJson(const GpuSpec& gpu);

// The larger of the time to move the bytes and the time to compute, at this part of the peak of `dtype`.
double FloorMicroseconds(const Launch& launch, const GpuSpec& gpu, DType dtype, double efficiency = 1);

}  // namespace deeper
