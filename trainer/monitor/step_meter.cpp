#include "trainer/monitor/step_meter.h"

#include <numeric>

namespace deeper {
namespace {

double Sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

// [head], over all ranks. Added up in the order of the samples, so that in elastic runs the number of ranks
// does not show.
std::vector<double> LossSums(const StepReport& report, Communicator& comm) {
  const std::vector<double>& mine = report.micro_losses;
  std::vector<double> all(mine.size() * static_cast<size_t>(comm.size())), sums(report.heads.size());
  comm.AllGather(mine.data(), all.data(), mine.size() * sizeof(double), {}).Wait();
  for (size_t i = 0; i < all.size(); ++i) sums[i % sums.size()] += all[i];
  return sums;
}

}  // namespace

StepMeter::StepMeter(const Model& model, Communicator& comm) : model_(model), comm_(comm) {}

void StepMeter::Add(const StepReport& report) {
  last_ = report;
  images_ += report.global_rows;
  samples_ += report.samples;
  nonfinite_steps_ += !report.finite;
  data_wait_ms_ += report.data_wait_ms;
  compute_ms_ += report.compute_ms;
  waits_ms_.push_back(report.comm_wait_ms);
}

StepMetrics StepMeter::Read(int64_t step, float lr, const StageTimes& loader) {
  const std::vector<double> loss_sums = LossSums(last_, comm_);
  std::vector<double> exposed_ms = waits_ms_;
  comm_.AllReduce(exposed_ms.data(), exposed_ms.size(), CommType::kF64, ReduceOp::kMin, {}).Wait();

  StepMetrics metrics;
  metrics.samples = samples_;
  comm_.AllReduce(&metrics.samples, 1, CommType::kI64, ReduceOp::kSum, {}).Wait();
  metrics.step = step;
  metrics.epoch = last_.epoch;
  metrics.lr = lr;
  for (size_t i = 0; i < loss_sums.size(); ++i) {
    const double mean = loss_sums[i] / static_cast<double>(last_.global_rows);
    metrics.loss += model_.heads[i].weight * mean;
    metrics.head_losses.emplace_back(model_.heads[i].name, mean);
  }
  const double steps = static_cast<double>(waits_ms_.size());
  const double waited_ms = Sum(waits_ms_);
  metrics.images_per_second = 1e3 * static_cast<double>(images_) / (data_wait_ms_ + compute_ms_ + waited_ms);
  metrics.data_wait_ms = data_wait_ms_ / steps;
  metrics.compute_ms = compute_ms_ / steps;
  const auto a_step = [&](Stage stage) {
    const auto i = static_cast<size_t>(stage);
    return (loader[i] - loader_ms_[i]) / steps;
  };
  metrics.read_ms = a_step(Stage::kRead);
  metrics.decode_ms = a_step(Stage::kDecode);
  metrics.augment_ms = a_step(Stage::kAugment);
  loader_ms_ = loader;
  metrics.comm_exposed_ms = Sum(exposed_ms) / steps;
  metrics.nonfinite_steps = nonfinite_steps_;
  metrics.peer_wait_ms = waited_ms / steps - metrics.comm_exposed_ms;
  images_ = 0;
  samples_ = 0;
  data_wait_ms_ = compute_ms_ = 0;
  waits_ms_.clear();
  return metrics;
}

}  // namespace deeper
