// Measures what the threads that fill batches spend their time on.
//
// A thread reports each stage that it begins to its thread-local StageClock, if it has one, in a few tens of
// nanoseconds. So code far below the loader can mark the end of reading and the start of decoding without a
// clock as an argument.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>

namespace deeper {

enum class Stage : uint8_t {
  kIdle,
  kRead,     // from disk or network, with the checksum; also making synthetic images
  kDecode,   // of image files
  kAugment,  // cropping, resizing and normalising, or packing for the device to do that
};
constexpr int kStages = 4;

// Milliseconds of all threads together, per Stage.
using StageTimes = std::array<double, kStages>;

// Thread-safe.
class StageClock {
 public:
  StageTimes Read() const;

 private:
  friend void EnterStage(Stage stage);
  std::array<std::atomic<int64_t>, kStages> nanoseconds_{};
};

// Sets this thread's clock, nullptr for none. The thread starts idle.
void CarryStageClock(StageClock* clock);

// Starts a stage of this thread. It lasts until the next call.
void EnterStage(Stage stage);

}  // namespace deeper
