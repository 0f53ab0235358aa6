// Combines the step reports of all ranks into the figures of a log line.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/communicator.h"
#include "kernels/base/clock.h"
#include "trainer/engine/train_step.h"
#include "trainer/models/model.h"
#include "trainer/monitor/metrics.h"

namespace deeper {

class StepMeter {
 public:
  StepMeter(const Model& model, Communicator& comm) : model_(model), comm_(comm) {}

  void Add(const StepReport& report);
  // Collective. The event "step", for the metrics only. Losses are those of the latest step, exact over all
  // ranks, summed in the order of the samples. Images per second (of all ranks) and milliseconds per step (of
  // this rank) are over the steps since the last Read; evaluations and checkpoints between them do not count.
  // In each step, the shortest wait of any rank counts as communication; the rest of this rank's wait counts
  // as waiting for slower ranks. "step_ms" alone includes what happens between steps, by the clock of this
  // rank since the last Read, or since the meter was made. `loader`: times of this rank's loader so far.
  // "samples": a hash of the samples trained on since the last Read, the same on any number of ranks.
  Event Read(int64_t step, float lr, const StageTimes& loader);

 private:
  const Model& model_;
  Communicator& comm_;
  StepReport last_;
  int64_t images_ = 0;
  uint64_t samples_ = 0;         // modulo 2^64
  int64_t nonfinite_steps_ = 0;  // of this process
  double data_wait_ms_ = 0;
  double last_read_ms_ = Milliseconds();
  StageTimes loader_ms_{};                      // at the last Read
  std::vector<double> computes_ms_, waits_ms_;  // [step]; waits for gradients
};

}  // namespace deeper
