// What a run watches itself for as it trains. A monitor is a file with its factory, and a row of kMonitors.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "comm/communicator.h"
#include "data/load/loader.h"
#include "trainer/engine/train_step.h"
#include "trainer/models/model.h"
#include "trainer/monitor/metrics.h"

namespace deeper {

// What monitors are made from. All that it refers to must outlive them.
struct MonitorContext {
  const Model& model;
  Communicator& comm;
  const Loader& loader;
  int cores = 1;                // of this rank
  int64_t allow_bad = 0;        // LoaderOptions::allow_bad
  bool skip_nonfinite = false;  // or stop at the first step that is not finite
  // Collective: FiniteGuard::Culprit of a step that was not finite.
  std::function<std::string(const StepReport&)> culprit = nullptr;
};

// A step that was done.
struct Observation {
  int64_t step = 0;  // counted from 1
  const StepReport& report;
  bool is_logged = false;  // the step is one that the run logs
};

class Monitor {
 public:
  virtual ~Monitor() = default;
  // Collective: every rank calls it after every step. Appends what happened; the events of rank 0 are
  // reported. An error, the same on every rank, ends the run.
  virtual absl::Status Observe(const Observation& now, std::vector<Event>& events) = 0;
  // A line for the log at the end of a run; empty: none.
  virtual std::string Summary() const { return ""; }
};

using MonitorFactory = std::unique_ptr<Monitor>(const MonitorContext&);

// Names ranks that are slower than the others again and again.
MonitorFactory WatchStragglers;
// Says once which stage of the way from the disk to the device keeps a run waiting, and what would help.
MonitorFactory WatchDataBottleneck;
// Skips steps that are not finite, or ends the run with ExitCode::kNotFinite.
MonitorFactory WatchNonFinite;
// Warns of a classifier that has not learned anything.
MonitorFactory WatchStuckHeads;
// Ends the run with ExitCode::kData once more samples than are allowed cannot be read, over all ranks.
MonitorFactory WatchBadSamples;

// In the order in which they observe a step.
inline constexpr MonitorFactory* kMonitors[] = {WatchStragglers, WatchDataBottleneck, WatchNonFinite,
                                                WatchStuckHeads, WatchBadSamples};

}  // namespace deeper
