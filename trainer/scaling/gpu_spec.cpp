#include "trainer/scaling/gpu_spec.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/base/status.h"
#include "nlohmann/json.hpp"

namespace deeper {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// In the order of GpuSpec's fields: flag, name; bytes/s, operations/s in bf16 and in fp32; compute
// capability, multiprocessors, shared memory per block; L2, memory; clock, memory clock in kHz.
// h100: SXM. Bandwidth is an estimate (data sheet: 3.35 TB/s). bf16 is 0.8 of the data sheet's dense figure,
// a ratio that others measured on the H200, the same chip. h200: others measured the bandwidth of a copy
// (data sheet: 4.8 TB/s) and bf16 of a matrix product (data sheet: 989 dense). a100: bandwidth is an estimate
// (data sheet: 2.039 TB/s); bf16 is the data sheet's dense figure. fp32 is the data sheets' figure for CUDA
// cores, without TF32, which our convolutions and matrix products do not use.
constexpr GpuSpec kGpus[] = {
    {"h100", "NVIDIA H100 80GB HBM3", 2.9e12, 0.8 * 989e12, 67e12, 900, 132, 232448, 50 * kMiB, 81079 * kMiB,
     1980000, 2619000},
    {"h200", "NVIDIA H200", 4.3e12, 788e12, 67e12, 900, 132, 232448, 60 * kMiB, 143771 * kMiB, 1980000,
     3201000},
    {"a100", "NVIDIA A100-SXM4-80GB", 1.75e12, 312e12, 19.5e12, 800, 108, 166912, 40 * kMiB, 81050 * kMiB,
     1410000, 1593000},
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
  return InvalidArgument("--gpu=", flag, ": must be one of ", absl::StrJoin(GpuNames(), ", "));
}

const GpuSpec* GpuOf(std::string_view description) {
  for (const GpuSpec& gpu : kGpus) {
    if (description.starts_with(absl::StrCat(gpu.name, ","))) return &gpu;
  }
  return nullptr;
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

double FloorMicroseconds(const Launch& launch, const PeakRates& peak, DType dtype, double efficiency) {
  const double flops = dtype == DType::kBf16 ? peak.bf16_flops : peak.fp32_flops;
  return 1e6 * std::max(static_cast<double>(launch.bytes) / peak.bytes_per_second,
                        2 * static_cast<double>(launch.macs) / (efficiency * flops));
}

}  // namespace deeper
