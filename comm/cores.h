// Cores and the ranks that share them.
#pragma once

#include "comm/communicator.h"

namespace deeper {

// Collective. This rank's fair share of the cores that it may use, at least 1: all of them where the launcher
// bound every rank to its own, a part where ranks share them.
int OwnCores(Communicator& comm);

}  // namespace deeper
