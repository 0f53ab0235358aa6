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

// The strongest wish of all ranks. They are asked before a step and answered after it: a signal may reach one
// rank sooner than another, and this way nobody waits for the answer.
class Wishes {
 public:
  explicit Wishes(Communicator& comm) : comm_(comm) {}
  // Collective, in turn.
  void Ask(Wish mine);
  Wish Answer();

 private:
  Communicator& comm_;
  int64_t strongest_ = 0;
  Request asked_;
};

}  // namespace deeper
