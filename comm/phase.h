// Where a rank is in its work: what the watchdog (watchdog/watchdog.h) says of one that is late or lost.
//
// The thread that trains says what it begins, in a few tens of nanoseconds. It says so to the PhaseBoard that
// it carries, or to nobody: code below the loop tells where it is without being handed a board.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>

namespace deeper {

enum class Phase : uint8_t {
  kStart,
  kLoader,
  kCompute,
  kBackward,
  kGradients,
  kUpdate,
  kReport,
  kEvaluation,
  kCheckpoint
};

struct PhaseMark {
  int64_t step = 0;   // under way, from 1; 0: before the first
  int64_t item = -1;  // within the phase: a micro-batch, an all-reduce, a batch of an evaluation; -1: none
  int64_t marks = 0;  // so far: a rank whose number stands still makes no progress
  Phase phase = Phase::kStart;
  bool waiting = false;    // for its peers
  bool unhurried = false;  // may take longer than others: what is done for the first time, and checkpoints
};

// "step 17, all-reduce 3 of the gradients, waiting for its peers".
std::string Describe(const PhaseMark& mark);

// The latest mark of one rank. Any thread may read it.
class PhaseBoard {
 public:
  PhaseMark Read() const;

 private:
  friend void EnterStep(int64_t step);
  friend void EnterPhase(Phase phase, int64_t item);
  friend class WaitingForPeers;
  void Enter(int64_t step, Phase phase, int64_t item);
  void SetWaiting(bool waiting);

  mutable std::mutex mutex_;
  PhaseMark mark_{.unhurried = true};
  uint32_t finished_ = 0;  // phases that came to an end before, as bits
};

// From now on this thread marks `board`; nullptr: none.
void CarryPhaseBoard(PhaseBoard* board);

// This thread begins a step, or a phase of the step that is under way.
void EnterStep(int64_t step);
void EnterPhase(Phase phase, int64_t item = -1);

// While it lives, this thread waits for what other ranks must do: it may be stuck, but is not to blame.
class WaitingForPeers {
 public:
  WaitingForPeers();
  ~WaitingForPeers();
  WaitingForPeers(const WaitingForPeers&) = delete;
  WaitingForPeers& operator=(const WaitingForPeers&) = delete;
};

}  // namespace deeper
