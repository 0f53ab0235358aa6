// Sees to it that a job whose rank hangs or dies ends, and says why.
//
// Every rank runs a thread that sends rank 0, four times a second over a TCP connection of its own, where its
// training thread is (comm/phase.h). Rank 0 judges them all (comm/watchdog/lateness.h), itself among them;
// the others judge rank 0 alone. A dead process is known by the end of its connection, at once; one that is
// stopped, or on the far side of a cut network, by silence; one that is stuck by a phase that does not
// change. The thread and the connections are not MPI's: they work while MPI is stuck, with any MPI library,
// and cost a step nothing but its marks.
//
// Whoever finds fault says which rank, in which phase and step and for how long, and ends the job through
// Communicator::Abort with kCommunicationExitCode; where that does not end this process within 3 s, it ends
// by itself. Time in which the watchdog did not run itself does not count: a job that is suspended as a
// whole, or a machine that is, goes on where it was.
//
// mpirun sends SIGTERM to all ranks as soon as it sees one die. So that the survivors can still name it,
// SIGTERM takes effect half a second later while a watchdog with `delay_sigterm` lives.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "comm/communicator.h"

namespace deeper {

struct WatchdogOptions {
  double deadline_seconds = 300;  // > 0: Judge's
  bool delay_sigterm = false;     // for one watchdog of a process at a time
  // Called once, on the watchdog's thread, with the verdict in words; empty: ends the job as said above.
  std::function<void(const std::string& reason)> on_failure = nullptr;
};

class Watchdog {
 public:
  // Collective. From now on the calling thread's phases are watched. Unavailable, on all ranks: a rank cannot
  // reach rank 0.
  static absl::StatusOr<std::unique_ptr<Watchdog>> Start(Communicator& comm, const WatchdogOptions& options);
  // On the thread that started it. No rank minds from now on if this one ends.
  virtual ~Watchdog() = default;
};

}  // namespace deeper
