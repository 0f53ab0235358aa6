// What this processor reaches with all threads of the CPU device, measured now: the roofline of a profile.
#pragma once

#include "absl/status/statusor.h"
#include "kernels/base/device.h"

namespace deeper {

// Takes about a second. The bandwidth is that of a copy of 256 MiB, read and written. The operations are
// those of oneDNN's matrix products; bf16_flops is 0 where the processor lacks bf16. Winograd convolutions
// may exceed fp32_flops, and work on data in the caches may exceed the bandwidth. ResourceExhausted without
// memory.
absl::StatusOr<PeakRates> MeasureCpuPeak(Device& device);

}  // namespace deeper
