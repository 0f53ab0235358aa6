// Ranks with a GPU each, over NCCL.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "kernels/base/device.h"

namespace deeper {

// "NCCL 2.28.9", once the library is loaded: it is opened at run time (comm/nccl/nccl_library.h), as most
// runs need none. Unimplemented: built without NCCL's header. NotFound: no library, or one that is too old.
absl::StatusOr<std::string> LoadNccl();

// Collective; LoadNccl succeeded and every rank has a GPU of its own. Buffers are memory of `device`, the
// calling thread's; `inner`, over host memory, brings the ranks together and outlives this one. Collectives
// run on a stream of their own: each waits for the work on `stream` so far, later work on the stream waits
// for its Request, and the host for nothing: all may be recorded, if every rank does. The stream has a higher
// priority than the device's: its few thread blocks go first, or backward would keep them waiting.
// NCCL's failures, also those of peers and networks that it notices while the GPU works, and an
// initialisation that takes longer than two minutes, end the job through inner.Abort. No kTreeSum, no
// SumInBf16.
std::unique_ptr<Communicator> MakeNcclCommunicator(Communicator& inner, Device& device);

}  // namespace deeper
