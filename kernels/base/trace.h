// What the threads of this process do, and when: for timelines (trainer/monitor/trace_file.h) and, in CUDA
// builds, as NVTX ranges for NVIDIA's profilers. While nobody traces, a call costs a load and a branch;
// NVTX's cost as much again.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace deeper {

struct TraceEvent {
  std::string lane;  // of the thread; "communication" for collectives
  int64_t row = 0;   // within the lane: a thread. -1: any one that is free then
  std::string name;
  int64_t start_ns = 0, end_ns = 0;  // TraceClock
};

// A thread's work nests in these.
enum class TraceLevel : int { kStep, kPhase, kDetail };

namespace trace_internal {
extern std::atomic<bool> tracing;
}

// Whether it is worth making up names for the calls below.
inline bool Tracing() {
  return trace_internal::tracing.load(std::memory_order_relaxed);
}

int64_t TraceClock();  // nanoseconds; never goes back

// One trace a process. Stop ends what this thread has begun; what others are still at is left out.
void StartTrace();
std::vector<TraceEvent> StopTrace();

// This thread's lane; "other" without it.
void TraceLane(const char* lane);
// From here on this thread is at `name`: ends what it did at this level and those below.
void TraceBegin(TraceLevel level, const std::string& name);
void TraceEnd(TraceLevel level);
// What ran beside the threads, from start_ns (0: nobody traced then) to now.
void TraceAsync(const char* lane, const std::string& name, int64_t start_ns);

}  // namespace deeper
