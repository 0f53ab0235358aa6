// Detects a classifier that has not learned anything: its mean loss stays at ln(classes), the loss of
// guessing. GoogLeNets trained from scratch do this (BVLC/caffe #1598, #6256). No other line shows it early.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "trainer/monitor/monitor.h"

namespace deeper {
namespace {

constexpr int64_t kWindow = 200;  // finite steps
// Relative to ln(classes). A head that learns is far below it after some hundred steps.
constexpr double kTolerance = 0.01;

class StuckHeads final : public Monitor {
 public:
  explicit StuckHeads(const MonitorContext& context)
      : chance_(std::log(static_cast<double>(context.model.num_classes))),
        classes_(context.model.num_classes) {
    for (const Head& head : context.model.heads) heads_.push_back({head.name});
  }

  // Warns once about a head that was stuck for a whole window.
  absl::Status Observe(const Observation& now, std::vector<Event>& events) override {
    if (!now.report.finite) return absl::OkStatus();
    for (size_t i = 0; i < heads_.size(); ++i) {
      const HeadResult& result = now.report.heads[i];
      heads_[i].sum += result.loss_sum / static_cast<double>(std::max<int64_t>(1, result.rows));
    }
    if (++seen_ < kWindow) return absl::OkStatus();
    for (State& head : heads_) {
      const double mean = head.sum / static_cast<double>(seen_);
      if (std::abs(mean - chance_) < kTolerance * chance_ && !head.warned) {
        head.warned = true;
        const std::string what = absl::StrFormat(
            "head %s is not learning: its mean loss over the last %d steps, up to step %d, "
            "is %.4f, the loss of guessing (ln %d = %.4f)",
            head.name, seen_, now.step, mean, classes_, chance_);
        events.push_back(
            {"stuck_head",
             {{"step", now.step}, {"what", what}},
             "warning: " + what + ". Try a lower --lr or a longer --warmup_epochs, and check the labels"});
      }
      head.sum = 0;
    }
    seen_ = 0;
    return absl::OkStatus();
  }

 private:
  struct State {
    std::string name;
    double sum = 0;  // of this rank's mean losses
    bool warned = false;
  };
  std::vector<State> heads_;
  double chance_;  // ln(classes)
  int64_t classes_, seen_ = 0;
};

}  // namespace

std::unique_ptr<Monitor> WatchStuckHeads(const MonitorContext& context) {
  return std::make_unique<StuckHeads>(context);
}

}  // namespace deeper
