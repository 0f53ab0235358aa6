// Ranks that are threads of one process, to test data-parallel code without a launcher and under
// ThreadSanitizer.
#pragma once

#include <memory>
#include <vector>

#include "comm/communicator.h"

namespace deeper {

// One communicator per thread; each is used by one thread at a time. Reductions add in rank order. Ranks that
// call different collectives fail a DEEPER_CHECK.
std::vector<std::unique_ptr<Communicator>> MakeThreadCommunicators(int size);

}  // namespace deeper
