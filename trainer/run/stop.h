// Signals that ask a run to save and end, and how its ranks agree on them.
#pragma once

#include <cstdint>

#include "comm/communicator.h"

namespace deeper {

// While an object exists, the first SIGTERM, SIGUSR1, SIGINT or SIGHUP only sets a flag. The second ends the
// process immediately, as the signal does by default; earlier saves are complete. SIGINT and SIGHUP stay
// ignored if they were. Several objects, of ranks that are threads of a process, are one until the last is
// gone.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // Whether a signal arrived; false if no object exists.
  static bool came();
};

// What a rank requests after a step. kLeave: another job has taken the checkpoint directory over.
enum class Wish : int64_t { kNone, kSave, kStop, kLeave };

// The strongest wish of all ranks. Collective: a signal may reach one rank earlier than another, and all must
// act alike. It costs one small message at the end of a step, where ranks have just waited for each other.
Wish StrongestWish(Wish mine, Communicator& comm);

}  // namespace deeper
