#include "comm/phase.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "kernels/base/trace.h"

namespace deeper {
namespace {

thread_local PhaseBoard* carried = nullptr;
thread_local Phase traced = Phase::kStart;

// In the order of Phase. " $" stands for the item, if there is one.
constexpr const char* kNames[] = {"start-up",
                                  "in the loader",
                                  "computing micro-batch $",
                                  "backward, gradient $",
                                  "all-reduce $ of the gradients",
                                  "updating the weights",
                                  "reporting",
                                  "evaluating batch $",
                                  "saving a checkpoint"};

std::string NameOf(Phase phase, int64_t item) {
  if (phase == Phase::kBackward && item < 0) return "backward";
  return absl::StrReplaceAll(kNames[static_cast<size_t>(phase)],
                             {{" $", item < 0 ? "" : absl::StrCat(" ", item)}});
}

}  // namespace

std::string Describe(const PhaseMark& mark) {
  return absl::StrCat(mark.step > 0 ? absl::StrCat("step ", mark.step, ", ") : "",
                      NameOf(mark.phase, mark.item), mark.waiting ? ", waiting for its peers" : "");
}

PhaseMark PhaseBoard::Read() const {
  std::lock_guard lock(mutex_);
  return mark_;
}

void PhaseBoard::Enter(int64_t step, Phase phase, int64_t item) {
  const auto bit = [](Phase p) { return 1u << static_cast<unsigned>(p); };
  std::lock_guard lock(mutex_);
  if (phase != mark_.phase) finished_ |= bit(mark_.phase);
  mark_.step = step >= 0 ? step : mark_.step;
  mark_.item = item;
  ++mark_.marks;
  mark_.phase = phase;
  mark_.unhurried = phase == Phase::kCheckpoint || (finished_ & bit(phase)) == 0;
}

void PhaseBoard::SetWaiting(bool waiting) {
  std::lock_guard lock(mutex_);
  ++mark_.marks;
  mark_.waiting = waiting;
}

void CarryPhaseBoard(PhaseBoard* board) {
  carried = board;
}

void EnterStep(int64_t step) {
  if (Tracing()) TraceBegin(TraceLevel::kStep, absl::StrCat("step ", step));
  if (carried != nullptr) carried->Enter(step, Phase::kLoader, -1);
}

void EnterPhase(Phase phase, int64_t item) {
  const bool backward = phase == Phase::kBackward;  // one span in a timeline, for all its gradients
  if (Tracing() && !(backward && traced == phase)) {
    traced = phase;
    TraceBegin(TraceLevel::kPhase, NameOf(phase, backward ? -1 : item));
  }
  if (carried != nullptr) carried->Enter(-1, phase, item);
}

WaitingForPeers::WaitingForPeers() {
  if (Tracing()) TraceBegin(TraceLevel::kDetail, "waiting for peers");
  if (carried != nullptr) carried->SetWaiting(true);
}

WaitingForPeers::~WaitingForPeers() {
  TraceEnd(TraceLevel::kDetail);
  if (carried != nullptr) carried->SetWaiting(false);
}

}  // namespace deeper
