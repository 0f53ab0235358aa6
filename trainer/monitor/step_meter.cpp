#include "trainer/monitor/step_meter.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_format.h"

namespace deeper {
namespace {

// [head], over all ranks. The order of the samples gives elastic runs the same bits on any number of ranks.
std::vector<double> LossSums(const StepReport& report, Communicator& comm) {
  const std::vector<double>& mine = report.micro_losses;
  std::vector<double> all(mine.size() * static_cast<size_t>(comm.size())), sums(report.heads.size());
  comm.AllGather(mine.data(), all.data(), mine.size() * sizeof(double), {}).Wait();
  for (size_t i = 0; i < all.size(); ++i) sums[i % sums.size()] += all[i];
  return sums;
}

// Relative standard deviations of the computing time: from step to step, and between the ranks' means over
// these steps beyond what the former explains.
struct Variation {
  double jitter = 0, spread = 0;
};

Variation VariationOf(const std::vector<double>& computes_ms, Communicator& comm) {
  const auto steps = static_cast<double>(computes_ms.size()), ranks = static_cast<double>(comm.size());
  const double mean = std::accumulate(computes_ms.begin(), computes_ms.end(), 0.0) / steps;
  double squares = 0;
  for (const double ms : computes_ms) squares += (ms - mean) * (ms - mean);
  double sums[] = {mean, mean * mean, squares / std::max(1.0, steps - 1)};  // over the ranks
  comm.AllReduce(sums, std::size(sums), CommType::kF64, ReduceOp::kSum, {}).Wait();
  const double of_all = sums[0] / ranks, over_steps = sums[2] / ranks;
  const double over_ranks = (sums[1] - ranks * of_all * of_all) / std::max(1.0, ranks - 1);
  if (of_all <= 0) return {};
  return {std::sqrt(over_steps) / of_all, std::sqrt(std::max(0.0, over_ranks - over_steps / steps)) / of_all};
}

}  // namespace

void StepMeter::Add(const StepReport& report) {
  last_ = report;
  images_ += report.global_rows;
  samples_ += static_cast<uint64_t>(report.samples);
  nonfinite_steps_ += !report.finite;
  data_wait_ms_ += report.data_wait_ms;
  computes_ms_.push_back(report.compute_ms);
  waits_ms_.push_back(report.comm_wait_ms);
}

Event StepMeter::Read(int64_t step, float lr, const StageTimes& loader) {
  const std::vector<double> loss_sums = LossSums(last_, comm_);
  std::vector<double> exposed_ms = waits_ms_;
  comm_.AllReduce(exposed_ms.data(), exposed_ms.size(), CommType::kF64, ReduceOp::kMin, {}).Wait();
  auto samples = static_cast<int64_t>(samples_);
  comm_.AllReduce(&samples, 1, CommType::kI64, ReduceOp::kSum, {}).Wait();
  const Variation variation = VariationOf(computes_ms_, comm_);

  nlohmann::ordered_json head_losses;
  double loss = 0;  // weighted
  for (size_t i = 0; i < loss_sums.size(); ++i) {
    const double mean = loss_sums[i] / static_cast<double>(last_.global_rows);
    loss += model_.heads[i].weight * mean;
    head_losses["loss_" + model_.heads[i].name] = mean;
  }
  const double now = Milliseconds(), steps = static_cast<double>(waits_ms_.size());
  const double compute_ms = std::accumulate(computes_ms_.begin(), computes_ms_.end(), 0.0);
  const double waited_ms = std::accumulate(waits_ms_.begin(), waits_ms_.end(), 0.0);
  const double exposed = std::accumulate(exposed_ms.begin(), exposed_ms.end(), 0.0) / steps;
  const auto a_step = [&](Stage stage) {
    const auto i = static_cast<size_t>(stage);
    return (loader[i] - loader_ms_[i]) / steps;
  };
  Event event = {"step", {{"step", step}, {"epoch", last_.epoch}, {"loss", loss}}};
  event.fields.update(head_losses);
  event.fields.update(
      {{"lr", lr},
       {"images_per_second", 1e3 * static_cast<double>(images_) / (data_wait_ms_ + compute_ms + waited_ms)},
       {"data_wait_ms", data_wait_ms_ / steps},
       {"compute_ms", compute_ms / steps},
       {"read_ms", a_step(Stage::kRead)},
       {"decode_ms", a_step(Stage::kDecode)},
       {"augment_ms", a_step(Stage::kAugment)},
       {"comm_exposed_ms", exposed},  // communication that backward did not hide
       {"peer_wait_ms", waited_ms / steps - exposed},
       {"step_ms", (now - last_read_ms_) / steps},
       {"compute_jitter", variation.jitter},
       {"compute_spread", variation.spread},
       {"samples", absl::StrFormat("%016x", samples)},
       {"nonfinite_steps", nonfinite_steps_}});
  last_read_ms_ = now;
  loader_ms_ = loader;
  images_ = 0;
  samples_ = 0;
  data_wait_ms_ = 0;
  computes_ms_.clear();
  waits_ms_.clear();
  return event;
}

}  // namespace deeper
