// Collectives on devices' memory by way of the host: for several ranks on one GPU, and where NCCL is not.
#pragma once

#include <memory>

#include "comm/communicator.h"
#include "kernels/base/device.h"

namespace deeper {

// The buffers of its collectives are memory of `device`, residuals host memory; `inner`, over host memory,
// carries them between the ranks. Both must outlive it. A call enqueues the data's way to pinned host memory,
// behind what is on the device's stream and beside what is enqueued after. Request::Wait does the rest, on
// the calling thread: waits for the data, then for the peers, and sends back the result, which later work on
// the device's stream finds. So backward goes on meanwhile, but requests must be waited for in the same order
// on every rank, and none of it can be recorded.
std::unique_ptr<Communicator> MakeStagedCommunicator(Communicator& inner, Device& device);

}  // namespace deeper
