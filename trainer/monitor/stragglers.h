// Names ranks that are slower than the others again and again: every step waits for the slowest, so one bad
// disk, throttled processor or busy machine slows the whole job down, and no other figure of a log shows
// whose.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace deeper {

// What a step takes on a rank, without waiting for other ranks.
struct RankTimes {
  double data_wait_ms = 0, compute_ms = 0;
  double total_ms() const { return data_wait_ms + compute_ms; }
};

class Stragglers {
 public:
  // Compares the means over each `window` steps.
  Stragglers(Communicator& comm, int64_t window);

  // This rank's times of one step; collective where a window ends here. A sentence, the same on every rank,
  // for each rank that took kSlower times as long as the median rank in this window and the one before, once
  // until it has caught up; usually none.
  std::vector<std::string> Observe(int64_t step, const RankTimes& mine);

  static constexpr double kSlower = 1.25;

 private:
  enum class State : uint8_t { kEven, kSlow, kNamed };

  Communicator& comm_;
  const int64_t window_;
  int64_t seen_ = 0;
  RankTimes sum_;              // over the window so far
  std::vector<State> states_;  // [rank]
};

}  // namespace deeper
