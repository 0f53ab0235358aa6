#include "trainer/monitor/stuck_head.h"

#include <cmath>

#include "absl/strings/str_format.h"

namespace deeper {
namespace {
constexpr double kTolerance =
    0.01;  // of ln(classes): a head that learns is far below within some hundred steps
}

StuckHeads::StuckHeads(const Model& model, int64_t window)
    : chance_(std::log(static_cast<double>(model.num_classes))),
      classes_(model.num_classes),
      window_(window) {
  for (const Head& head : model.heads) heads_.push_back({head.name});
}

std::vector<std::string> StuckHeads::Observe(int64_t step, const std::vector<double>& losses) {
  for (size_t i = 0; i < heads_.size(); ++i) heads_[i].sum += losses[i];
  if (++seen_ < window_) return {};
  std::vector<std::string> warnings;
  for (State& head : heads_) {
    const double mean = head.sum / static_cast<double>(seen_);
    if (std::abs(mean - chance_) < kTolerance * chance_ && !head.warned) {
      head.warned = true;
      warnings.push_back(
          absl::StrFormat("warning: head %s is not learning: its mean loss over the last %d steps, to step "
                          "%d, is %.4f, which is guessing (ln %d = %.4f). "
                          "Try a lower --lr or a longer --warmup_epochs, and check the labels",
                          head.name, seen_, step, mean, classes_, chance_));
    }
    head.sum = 0;
  }
  seen_ = 0;
  return warnings;
}

}  // namespace deeper
