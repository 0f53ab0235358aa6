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
  double silent = 0;    // seconds since its last message
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

// The message for the user.
std::string Describe(const Verdict& verdict, double deadline);

}  // namespace deeper
