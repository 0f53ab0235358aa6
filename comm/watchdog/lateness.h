// Decides which rank keeps a job from making progress: the watchdog's rules (watchdog.h), as a function of
// its observations.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/phase.h"

namespace deeper {

// How many times longer an unhurried phase may take.
constexpr double kUnhurriedFactor = 4;

// What the watchdog knows about a rank. Counts only the seconds in which the watchdog itself was running.
struct RankStatus {
  PhaseMark mark;
  double standing = 0;  // seconds since its last mark, as it reports
  double silent = 0;    // seconds since its last message, as the rank reports that receives them
  bool gone = false;    // its connection ended without a farewell
  int error = 0;        // errno, if the network ended the connection
  bool left = false;    // it sent a farewell: no longer watched
};

struct Verdict {
  enum class Kind { kGone, kSilent, kLate, kDeadlock };
  Kind kind = Kind::kGone;
  int rank = 0;
  RankStatus status;
  int others = 0;  // other ranks with the same kind of verdict
  // kDeadlock:
  bool tied = false;             // no rank made less progress than another
  int64_t latest_step = 0;       // of any rank
  std::vector<int> behind = {};  // the ranks in an earlier step
};

// nullopt: nothing is wrong. Otherwise, in this order: a lost rank; a rank that was silent for the deadline;
// a rank that has not waited for peers but made no progress for longer than the deadline; and, if all ranks
// wait for their peers for longer than that, the rank with the least progress. `deadline` in seconds.
std::optional<Verdict> Judge(std::span<const RankStatus> ranks, double deadline);

// Seconds for which a rank lets others report the loss of its parent before it does. Rank 0 reports the loss
// of all ranks but itself. All its children notice that one at the same moment, and rank 1 reports it at
// once. Rank 2 and `elsewhere`, the first rank on another host than rank 0, report it as well: rank 1 may get
// no core, or its host may be lost. The others wait longer than mpirun takes to end them: that of Open MPI
// 4.1 sends SIGTERM after 1 s and SIGKILL after 2 s.
double ReportDelay(int rank, int elsewhere);

// The message for the user.
std::string Describe(const Verdict& verdict, double deadline);

// "ranks 0, 2-7: step 17, all-reduce 3 of the gradients, waiting for its peers; rank 9: ...": where all ranks
// were at their last heartbeat, except those that left. The largest groups of ranks, at most `groups`.
std::string DescribeAll(std::span<const RankStatus> ranks, size_t groups = 8);

}  // namespace deeper
