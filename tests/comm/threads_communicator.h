// Ranks that are threads of one process: the data-parallel code under test without a launcher, and where
// ThreadSanitizer can see all of it.
#pragma once

#include <memory>
#include <vector>

#include "comm/communicator.h"

namespace deeper {

// One communicator for each of `size` threads; each is used by one thread at a time. Reductions fold the
// ranks in rank order. Ranks that disagree about the next collective fail a DEEPER_CHECK.
std::vector<std::unique_ptr<Communicator>> MakeThreadCommunicators(int size);

}  // namespace deeper
