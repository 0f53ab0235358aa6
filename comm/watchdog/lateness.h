// Who keeps a job from going on: the watchdog's rules (watchdog.h), as a function of what it has seen.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "comm/phase.h"

namespace deeper {

// How much longer than others an unhurried phase may take.
constexpr double kUnhurriedFactor = 4;

// What is known of a rank. Seconds are those in which the watchdog itself was running.
struct RankStatus {
  PhaseMark mark;
  double standing = 0;  // seconds since its last mark, as it says
  double silent = 0;    // seconds since it was heard of
  bool gone = false;    // its connection ended without a farewell
  int error = 0;        // of the network, if that ended it
  bool left = false;    // it said farewell: no longer watched
};

struct Verdict {
  enum class Kind { kGone, kSilent, kLate, kDeadlock };
  Kind kind = Kind::kGone;
  int rank = 0;
  RankStatus status;
  int others = 0;  // ranks of which the same is true
};

// nullopt: nothing is wrong. Otherwise, in this order: a rank that is gone; one that was not heard of for the
// deadline; one that does not wait for peers and stands still for longer than it; and, where all wait for
// their peers for longer than it, the rank that got least far. `deadline` in seconds.
std::optional<Verdict> Judge(std::span<const RankStatus> ranks, double deadline);

// What the user is told.
std::string Describe(const Verdict& verdict, double deadline);

}  // namespace deeper
