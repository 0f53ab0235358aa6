// How a run is asked to save and end, and how its ranks come to do the same.
#pragma once

#include <cstdint>

#include "comm/communicator.h"

namespace deeper {

// While it lives, the first SIGTERM or SIGUSR1 only leaves a note; the second ends the process at once, as
// the signal does by default: what was saved before is whole. One at a time.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // Whether one came; false where none lives.
  static bool came();
};

// What a rank wants to happen after a step.
enum class Wish : int64_t { kNone, kSave, kStop };

// The strongest wish of all ranks. Collective: a signal may reach one rank sooner than another, and all must
// do the same. At the end of a step, where ranks have just waited for each other, it costs one small message.
Wish StrongestWish(Wish mine, Communicator& comm);

}  // namespace deeper
