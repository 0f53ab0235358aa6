#include "trainer/scaling/kernel_model.h"

#include <algorithm>
#include <cmath>

namespace deeper {

double LaunchTime::us() const {
  return std::max({bytes_us, products_us, instructions_us}) + sums_us;
}

double LatencyOf(const KernelWork& work, const KernelModel& model) {
  return work.early * model.early_us + (work.kernels - work.early) * model.launch_us;
}

LaunchTime TimeOf(const Launch& launch, const KernelWork& work, const GpuSpec& gpu, DType precision,
                  const KernelModel& model) {
  const double clocks_per_us = model.clock * static_cast<double>(gpu.clock_khz) / 1e3;
  const double flops = precision == DType::kBf16 ? gpu.bf16_flops : gpu.fp32_flops;
  const auto macs = static_cast<double>(std::max(launch.macs, work.macs));
  LaunchTime time;
  time.bytes_us = 1e6 * static_cast<double>(launch.bytes) / gpu.bytes_per_second;
  time.products_us = std::max(
      1e6 * 2 * macs / (model.matrix_efficiency * flops),
      static_cast<double>(work.l2_bytes) / (model.l2_bytes_per_clock * gpu.multiprocessors * clocks_per_us));
  time.sums_us = 1e6 * 2 * static_cast<double>(work.partial_bytes) / gpu.bytes_per_second;
  if (work.warps == 0) return time;
  const auto warps = static_cast<double>(work.warps);
  const double per_scheduler = std::max(1.0, warps / (model.schedulers * gpu.multiprocessors));
  const double rounds = std::ceil(warps / (work.warps_on_sm * gpu.multiprocessors));
  time.instructions_us =
      std::max(per_scheduler * work.cycles / clocks_per_us, rounds * work.waits * model.load_us);
  return time;
}

}  // namespace deeper
