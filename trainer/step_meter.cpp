#include "trainer/step_meter.h"

#include <vector>

namespace deeper {
StepMeter::StepMeter(const Model& model, Communicator& comm) : model_(model), comm_(comm) {}

void StepMeter::Add(const StepReport& report) {
  last_ = report;
  ++steps_;
  images_ += report.global_rows;
  data_wait_ms_ += report.data_wait_ms;
  compute_ms_ += report.compute_ms;
  comm_exposed_ms_ += report.comm_exposed_ms;
}

StepMetrics StepMeter::Read(int64_t step, float lr) {
  std::vector<double> sums;
  for (const HeadResult& head : last_.heads) sums.push_back(head.loss_sum);
  comm_.AllReduce(sums.data(), sums.size(), CommType::kF64, ReduceOp::kSum, {}).Wait();

  StepMetrics metrics;
  metrics.step = step;
  metrics.epoch = last_.epoch;
  metrics.lr = lr;
  for (size_t i = 0; i < sums.size(); ++i) {
    const double mean = sums[i] / static_cast<double>(last_.global_rows);
    metrics.loss += model_.heads[i].weight * mean;
    metrics.head_losses.emplace_back(model_.heads[i].name, mean);
  }
  const double steps = static_cast<double>(steps_);
  metrics.images_per_second =
      1e3 * static_cast<double>(images_) / (data_wait_ms_ + compute_ms_ + comm_exposed_ms_);
  metrics.data_wait_ms = data_wait_ms_ / steps;
  metrics.compute_ms = compute_ms_ / steps;
  metrics.comm_exposed_ms = comm_exposed_ms_ / steps;
  steps_ = images_ = 0;
  data_wait_ms_ = compute_ms_ = comm_exposed_ms_ = 0;
  return metrics;
}

}  // namespace deeper
