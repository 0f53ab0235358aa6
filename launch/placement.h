// Which cores a rank computes on.
#pragma once

#include <memory>

#include "comm/communicator.h"
#include "kernels/device.h"

namespace deeper {

// Collective. The CPU with `threads` threads, or, if that is 0, with this rank's fair share of the cores that
// it may use: all of them where the launcher bound every rank to its own, a part where ranks share them.
std::unique_ptr<Device> MakeCpuDeviceFor(Communicator& comm, int threads);

}  // namespace deeper
