// Collectives on device memory through the host: for several ranks per GPU, or without NCCL.
#pragma once

#include <memory>

#include "comm/communicator.h"
#include "kernels/base/device.h"

namespace deeper {

// Buffers of its collectives are memory of `device`; residuals are host memory. `inner`, over host memory,
// transfers them between the ranks. Both must outlive the result. A call enqueues a copy to pinned host
// memory, after earlier work on the device's stream and concurrent with later work. Request::Wait does the
// rest on the calling thread: it waits for the copy, then for the peers, and enqueues the upload of the
// result, which later work on the device's stream sees. So backward continues meanwhile, but every rank must
// wait for its requests in the same order, and nothing can be recorded.
std::unique_ptr<Communicator> MakeStagedCommunicator(Communicator& inner, Device& device);

}  // namespace deeper
