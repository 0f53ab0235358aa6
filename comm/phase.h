// The phase of work of a rank. The watchdog (watchdog/watchdog.h) reports it for a late or lost rank.
//
// The training thread reports each phase that it begins to its thread-local PhaseBoard, if it has one, in a
// few tens of nanoseconds. So code below the training loop can report phases without a board as an argument.
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
  int64_t step = 0;   // current step, from 1; 0: before the first
  int64_t item = -1;  // within the phase: a micro-batch, an all-reduce, a batch of an evaluation; -1: none
  int64_t marks = 0;  // so far; a rank whose number does not change makes no progress
  Phase phase = Phase::kStart;
  bool waiting = false;    // for its peers
  bool unhurried = false;  // may take longer than others: a phase's first time, and checkpoints
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
  uint32_t finished_ = 0;  // phases that have ended at least once, as bits
};

// Sets this thread's board; nullptr: none.
void CarryPhaseBoard(PhaseBoard* board);

// This thread begins a step, or a phase of the current step.
void EnterStep(int64_t step);
void EnterPhase(Phase phase, int64_t item = -1);

// During its lifetime, this thread waits for other ranks: it may be stuck, but is not the cause.
class WaitingForPeers {
 public:
  WaitingForPeers();
  ~WaitingForPeers();
  WaitingForPeers(const WaitingForPeers&) = delete;
  WaitingForPeers& operator=(const WaitingForPeers&) = delete;
};

}  // namespace deeper
