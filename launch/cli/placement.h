// Which cores or which GPU a rank computes on.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "kernels/base/device.h"
#include "trainer/run/config.h"

namespace deeper {

// Collective; config.device says which kind.
//   cpu   with config.threads threads, or, if that is 0, one for each of OwnCores().
//   cuda  the GPU of this rank's number on its machine, counted round where there are more ranks than GPUs,
//         and the cores next to that GPU.
// Errors are those of MakeCudaDevice, the same on all ranks.
absl::StatusOr<std::unique_ptr<Device>> MakeDeviceFor(const RunConfig& config, Communicator& comm);

}  // namespace deeper
