// Monitors watch a run as it trains. Each one is a file with its factory, and a row of kMonitors.
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

// The arguments of a monitor's factory. Everything that it refers to must outlive the monitors.
struct MonitorContext {
  const Model& model;
  Communicator& comm;
  const Loader& loader;
  int cores = 1;                // of this rank
  int64_t allow_bad = 0;        // LoaderOptions::allow_bad
  bool skip_nonfinite = false;  // false: the first step that is not finite ends the run
  // Collective: FiniteGuard::Culprit of a step that was not finite.
  std::function<std::string(const StepReport&)> culprit = nullptr;
};

// A completed step.
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

// Reports ranks that are repeatedly slower than the others.
MonitorFactory WatchStragglers;
// Reports once which input stage, from disk to device, keeps training waiting, and what to change.
MonitorFactory WatchDataBottleneck;
// Skips steps that are not finite, or ends the run with ExitCode::kNotFinite.
MonitorFactory WatchNonFinite;
// Warns about a classifier that has not learned anything.
MonitorFactory WatchStuckHeads;
// Ends the run with ExitCode::kData if, over all ranks, more samples than allowed cannot be read.
MonitorFactory WatchBadSamples;

// In the order in which they observe a step.
inline constexpr MonitorFactory* kMonitors[] = {WatchStragglers, WatchDataBottleneck, WatchNonFinite,
                                                WatchStuckHeads, WatchBadSamples};

}  // namespace deeper
