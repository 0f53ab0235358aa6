// Collectives over NCCL, with one GPU per rank.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "kernels/base/device.h"

namespace deeper {

// Returns "NCCL 2.28.9". Loads the library at run time (comm/nccl/nccl_library.h), as most runs do not need
// it. Unimplemented: built without NCCL's header. NotFound: no library, or one that is too old.
absl::StatusOr<std::string> LoadNccl();

// Collective. LoadNccl must have succeeded, and every rank must have its own GPU. Buffers are memory of
// `device`, the calling thread's. `inner`, over host memory, connects the ranks and must outlive the result.
// Collectives run on a separate stream. Each waits for the work on `stream` so far; later work on `stream`
// waits for its Request. The host waits for nothing, so collectives can be recorded, if every rank does. The
// separate stream has a higher priority than the device's: its few thread blocks run first, since backward
// would delay them.
// NCCL failures end the job through inner.Abort, including those of peers and networks that NCCL detects
// while the GPU works. So does an initialisation that takes longer than two minutes. A collective waits for
// its peers without limit; the watchdog has one. No SumInBf16, and kTreeSum only with `tree_sums`: each rank
// then shares a communicator of NCCL with its partner at every level of the tree. A sum of two is the same in
// any order, so NCCL's algorithms cannot change its bits.
std::unique_ptr<Communicator> MakeNcclCommunicator(Communicator& inner, Device& device,
                                                   bool tree_sums = false);

}  // namespace deeper
