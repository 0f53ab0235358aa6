// What the time of the threads that fill batches goes into.
//
// A thread says what it begins, in a few tens of nanoseconds, to the StageClock that it carries, or to
// nobody: so code far below the loader, and without a clock handed down to it, says where reading ends and
// decoding begins.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>

namespace deeper {

enum class Stage : uint8_t {
  kIdle,
  kRead,     // from disk or network, with the checksum; images that are made up
  kDecode,   // of image files
  kAugment,  // to the network's input: cut, resized, normalised, or laid out for the device to do that
};
constexpr int kStages = 4;

// Milliseconds of all threads together, by Stage.
using StageTimes = std::array<double, kStages>;

// Added to by any number of threads.
class StageClock {
 public:
  StageTimes Read() const;

 private:
  friend void EnterStage(Stage stage);
  std::array<std::atomic<int64_t>, kStages> nanoseconds_{};
};

// From now on this thread's time goes to `clock`; nullptr: to none. It begins idle.
void CarryStageClock(StageClock* clock);

// This thread begins a stage, which lasts until it begins the next one.
void EnterStage(Stage stage);

}  // namespace deeper
