// Ends a job in which a rank hangs or dies, and reports the cause.
//
// The ranks form a tree (comm/watchdog/peer_link.h). Every rank runs a thread that sends a heartbeat to its
// parent four times a second, over a TCP connection of its own. The heartbeat contains the phase of the
// rank's training thread (comm/phase.h), and what the rank knows of those below it. So rank 0 knows and
// judges all ranks (comm/watchdog/lateness.h), including itself; the others judge only their parent. A dead
// process is detected at once, by the end of its connection. A stopped process or a broken network is
// detected by silence. A stuck process is detected by a phase that does not change. The thread and the
// connections are independent of MPI: they work while MPI is stuck, with any MPI library, and the only cost
// per step is that of the marks.
//
// The rank that detects a fault reports the faulty rank, its phase and step and the time, and ends the job
// through Communicator::Abort with kCommunicationExitCode. If that does not end this process within 3 s, the
// process exits. Time in which the watchdog itself did not run does not count, so a job or machine that was
// suspended as a whole continues afterwards.
//
// mpirun sends SIGTERM to all ranks soon after it sees one die. To give the survivors time to name it, a
// watchdog with `delay_sigterm` delays SIGTERM by half a second.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "comm/communicator.h"

namespace deeper {

struct WatchdogOptions {
  double deadline_seconds = 300;  // > 0; see Judge
  bool delay_sigterm = false;     // for at most one watchdog per process at a time
  // Called once, on the watchdog's thread, with the verdict as a message. If empty, the watchdog ends the job
  // as described above.
  std::function<void(const std::string& reason)> on_failure = nullptr;
};

class Watchdog {
 public:
  // Collective. From now on the watchdog observes the calling thread's phases. Unavailable, on all ranks: a
  // rank cannot reach its parent.
  static absl::StatusOr<std::unique_ptr<Watchdog>> Start(Communicator& comm, const WatchdogOptions& options);
  // On the thread that started it. After that, the other ranks accept that this one ends. Takes up to two
  // seconds if a peer does not answer.
  virtual ~Watchdog() = default;
};

}  // namespace deeper
