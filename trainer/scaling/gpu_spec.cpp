#include "trainer/scaling/gpu_spec.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"

namespace deeper {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// fp32 is without TF32, as our convolutions and matrix products are: the data sheets' figure for CUDA cores.
constexpr GpuSpec kGpus[] = {
    {.flag = "h100",
     .name = "NVIDIA H100 80GB HBM3",  // SXM
     .bytes_per_second = 2.9e12,       // estimate; data sheet: 3.35 TB/s
     .bf16_flops =
         0.8 * 989e12,     // 0.8 of the data sheet, dense: others measured that on the H200, the same chip
     .fp32_flops = 67e12,  // data sheet
     .compute_capability = 900,
     .multiprocessors = 132,
     .shared_bytes = 232448,
     .l2_bytes = 50 * kMiB,
     .memory_bytes = 81079 * kMiB,
     .clock_khz = 1980000,
     .memory_clock_khz = 2619000},
    {.flag = "h200",
     .name = "NVIDIA H200",
     .bytes_per_second = 4.3e12,  // measured by others, a copy; data sheet: 4.8 TB/s
     .bf16_flops = 788e12,        // measured by others, a matrix product; data sheet: 989 dense
     .fp32_flops = 67e12,         // data sheet
     .compute_capability = 900,
     .multiprocessors = 132,
     .shared_bytes = 232448,
     .l2_bytes = 60 * kMiB,
     .memory_bytes = 143771 * kMiB,
     .clock_khz = 1980000,
     .memory_clock_khz = 3201000},
    {.flag = "a100",
     .name = "NVIDIA A100-SXM4-80GB",
     .bytes_per_second = 1.75e12,  // estimate; data sheet: 2.039 TB/s
     .bf16_flops = 312e12,         // data sheet, dense
     .fp32_flops = 19.5e12,        // data sheet
     .compute_capability = 800,
     .multiprocessors = 108,
     .shared_bytes = 166912,
     .l2_bytes = 40 * kMiB,
     .memory_bytes = 81050 * kMiB,
     .clock_khz = 1410000,
     .memory_clock_khz = 1593000},
};

}  // namespace

std::vector<std::string> GpuNames() {
  std::vector<std::string> names;
  for (const GpuSpec& gpu : kGpus) names.push_back(gpu.flag);
  return names;
}

absl::StatusOr<GpuSpec> FindGpu(const std::string& flag) {
  for (const GpuSpec& gpu : kGpus) {
    if (gpu.flag == flag) return gpu;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--gpu=", flag, ": must be one of ", absl::StrJoin(GpuNames(), ", ")));
}

const GpuSpec* GpuOf(std::string_view description) {
  const auto* const found = std::find_if(std::begin(kGpus), std::end(kGpus), [&](const GpuSpec& gpu) {
    return description.starts_with(absl::StrCat(gpu.name, ","));
  });
  return found == std::end(kGpus) ? nullptr : found;
}

std::string DevicePropertiesJson(const GpuSpec& gpu) {
  const std::vector<int64_t> grid = {2147483647, 65535, 65535}, block = {1024, 1024, 64};
  return nlohmann::json{
      {"deviceName", gpu.name},
      {"deviceVer", gpu.compute_capability},
      {"cudaDeviceId", 0},
      {"pciDeviceId", 0},
      {"driverVer", 13000},
      {"isTccDriver", 0},
      {"supportCoopLaunch", 1},
      {"multiProcessorCount", gpu.multiprocessors},
      {"smClockRateKHz", gpu.clock_khz},
      {"memClockRateKHz", gpu.memory_clock_khz},
      {"totalGlobalMem", gpu.memory_bytes},
      {"l2CacheSize", gpu.l2_bytes},
      {"maxSharedMemoryPerBlock", 49152},
      {"maxSharedMemoryPerBlockOptin", gpu.shared_bytes},
      {"reservedSharedMemoryPerBlock", 1024},
      {"regsPerBlock", 65536},
      {"maxRegistersPerSM", 65536},
      {"warpSize", 32},
      {"maxCtasPerSM", 32},
      {"maxThreadsPerSM", 2048},
      {"maxThreadsPerBlock", 1024},
      {"maxBlockSize", block},
      {"maxGridSize", grid},
  }
      .dump();
}

double FloorMicroseconds(const Launch& launch, const GpuSpec& gpu, DType dtype, double efficiency) {
  const double flops = dtype == DType::kBf16 ? gpu.bf16_flops : gpu.fp32_flops;
  return 1e6 * std::max(static_cast<double>(launch.bytes) / gpu.bytes_per_second,
                        2 * static_cast<double>(launch.macs) / (efficiency * flops));
}

}  // namespace deeper
