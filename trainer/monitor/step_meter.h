// Turns what ranks saw of single steps into the figures of a log line.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/communicator.h"
#include "trainer/engine/train_step.h"
#include "trainer/models/model.h"
#include "trainer/monitor/metrics.h"

namespace deeper {

class StepMeter {
 public:
  StepMeter(const Model& model, Communicator& comm) : model_(model), comm_(comm) {}

  void Add(const StepReport& report);
  // Collective. The event "step", for the metrics alone. Losses are those of the latest step, exact over all
  // ranks, summed in the order of the samples. Images per second (of all ranks) and milliseconds a step (of
  // this rank) are over the steps since the last Read; evaluations and checkpoints between them do not count.
  // Of the time spent waiting in a step, the part that the rank which came last waited too is communication;
  // the rest is waiting for that rank. `loader` is the time of this rank's loader so far. "samples" says
  // which ones were trained on since the last Read: a hash, the same on any ranks.
  Event Read(int64_t step, float lr, const StageTimes& loader);

 private:
  const Model& model_;
  Communicator& comm_;
  StepReport last_;
  int64_t images_ = 0;
  int64_t samples_ = 0;
  int64_t nonfinite_steps_ = 0;  // since the beginning
  double data_wait_ms_ = 0, compute_ms_ = 0;
  StageTimes loader_ms_{};        // at the last Read
  std::vector<double> waits_ms_;  // for gradients; a step each
};

}  // namespace deeper
