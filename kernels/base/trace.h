// Records what the threads of this process do, and when. Timelines use it (trainer/monitor/trace_file.h);
// CUDA builds also emit NVTX ranges for NVIDIA's profilers. While no trace is active, a call costs a load and
// a branch, and about the same again for NVTX.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace deeper {

struct TraceEvent {
  std::string lane;  // of the thread, or "communication" for collectives
  int64_t row = 0;   // thread within the lane; -1: any free row
  std::string name;
  int64_t start_ns = 0, end_ns = 0;  // TraceClock
};

// The nesting of a thread's work.
enum class TraceLevel : int { kStep, kPhase, kDetail };

namespace trace_internal {
extern std::atomic<bool> tracing;
}

// Whether a trace is active. Skip building names for the calls below if not.
inline bool Tracing() {
  return trace_internal::tracing.load(std::memory_order_relaxed);
}

int64_t TraceClock();  // nanoseconds, monotonic

// Only one trace per process. StopTrace ends this thread's open events and omits those of other threads.
void StartTrace();
std::vector<TraceEvent> StopTrace();

// Sets this thread's lane; the default is "other".
void TraceLane(const char* lane);
// Starts `name` on this thread. Ends the thread's events at this level and the levels below.
void TraceBegin(TraceLevel level, const std::string& name);
void TraceEnd(TraceLevel level);
// Records work that ran concurrently with the threads, from start_ns (0: no trace was active then) to now.
void TraceAsync(const char* lane, const std::string& name, int64_t start_ns);

}  // namespace deeper
