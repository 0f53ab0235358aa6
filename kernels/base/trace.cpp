#include "kernels/base/trace.h"

#include <array>
#include <chrono>
#include <mutex>
#include <utility>

#ifdef DEEPER_CUDA
#include "nvtx3/nvToolsExt.h"
#endif

namespace deeper {
namespace {

#ifdef DEEPER_CUDA
constexpr bool kNvtx = true;
void PushRange(const std::string& name) {
  // Otherwise NVTX initializes itself in the first call of any thread, without a lock that other threads see.
  [[maybe_unused]] static const bool initialized = (nvtxInitialize(nullptr), true);
  nvtxRangePushA(name.c_str());
}
void PopRange() {
  nvtxRangePop();
}
#else
constexpr bool kNvtx = false;
void PushRange(const std::string&) {}
void PopRange() {}
#endif

std::mutex mutex;                    // guards the writes to the variables below
std::atomic<bool> recording{false};  // true between StartTrace and StopTrace
std::vector<TraceEvent> events;

struct Open {
  std::string name;
  int64_t start_ns = 0;  // 0: no trace was active
  bool open = false;
};

struct ThreadState {
  const char* lane = "other";
  int64_t row = 0;
  std::array<Open, 3> levels;  // [TraceLevel]

  ThreadState() {
    static std::atomic<int64_t> threads{0};
    row = threads++;
  }
};
thread_local ThreadState self;

void Record(TraceEvent event) {
  const std::lock_guard lock(mutex);
  if (recording) events.push_back(std::move(event));
}

}  // namespace

std::atomic<bool> trace_internal::tracing{kNvtx};

int64_t TraceClock() {
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

void StartTrace() {
  const std::lock_guard lock(mutex);
  recording = true;
  trace_internal::tracing = true;
}

std::vector<TraceEvent> StopTrace() {
  TraceEnd(TraceLevel::kStep);
  const std::lock_guard lock(mutex);
  recording = false;
  trace_internal::tracing = kNvtx;
  return std::exchange(events, {});
}

void TraceLane(const char* lane) {
  self.lane = lane;
}

void TraceBegin(TraceLevel level, const std::string& name) {
  if (!Tracing()) return;
  TraceEnd(level);
  PushRange(name);
  self.levels[static_cast<size_t>(level)] = {name, recording ? TraceClock() : 0, true};
}

void TraceEnd(TraceLevel level) {
  if (!Tracing()) return;
  const int64_t now = TraceClock();
  for (size_t i = self.levels.size(); i-- > static_cast<size_t>(level);) {
    Open& ended = self.levels[i];
    if (!std::exchange(ended.open, false)) continue;
    PopRange();
    if (ended.start_ns > 0) Record({self.lane, self.row, std::move(ended.name), ended.start_ns, now});
  }
}

void TraceAsync(const char* lane, const std::string& name, int64_t start_ns) {
  if (start_ns > 0) Record({lane, -1, name, start_ns, TraceClock()});
}

}  // namespace deeper
