#include "data/load/stage_clock.h"

#include <cstddef>

namespace deeper {
namespace {

using Clock = std::chrono::steady_clock;

struct Carried {
  StageClock* clock = nullptr;
  Stage stage = Stage::kIdle;
  Clock::time_point since{};
};
thread_local Carried carried;

}  // namespace

StageTimes StageClock::Read() const {
  StageTimes times;
  for (size_t i = 0; i < times.size(); ++i) times[i] = static_cast<double>(nanoseconds_[i]) / 1e6;
  return times;
}

void CarryStageClock(StageClock* clock) {
  carried = {clock, Stage::kIdle, Clock::now()};
}

void EnterStage(Stage stage) {
  if (carried.clock == nullptr) return;
  const Clock::time_point now = Clock::now();
  carried.clock->nanoseconds_[static_cast<size_t>(carried.stage)].fetch_add(
      std::chrono::nanoseconds(now - carried.since).count(), std::memory_order_relaxed);
  carried.stage = stage;
  carried.since = now;
}

}  // namespace deeper
