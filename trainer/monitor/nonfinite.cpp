#include "absl/strings/str_cat.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "trainer/monitor/monitor.h"

namespace deeper {
namespace {

constexpr int kMostSkippedInARow = 100;  // steps; after them, skipping does not help

class NonFinite final : public Monitor {
 public:
  explicit NonFinite(const MonitorContext& context)
      : skip_(context.skip_nonfinite), culprit_(context.culprit) {}

  // A step that is not finite did not change the weights.
  absl::Status Observe(const Observation& now, std::vector<Event>& events) override {
    if (now.report.finite) {
      in_a_row_ = 0;
      return absl::OkStatus();
    }
    const std::string culprit = culprit_(now.report);
    const std::string what = absl::StrCat("step ", now.step, ": ", culprit);
    const bool skipped = skip_ && ++in_a_row_ < kMostSkippedInARow;
    events.push_back(
        {"nonfinite", {{"step", now.step}, {"reason", culprit}}, skipped ? "warning: skipped " + what : ""});
    if (skipped) return absl::OkStatus();
    return WithExitCode(OutOfRange(what, skip_ ? absl::StrCat("; ", in_a_row_, " steps in a row") : "",
                                   ". The step did not change the weights. Resume from the newest checkpoint "
                                   "with a lower --lr, a longer --warmup_epochs or --on_nonfinite=skip"),
                        ExitCode::kNotFinite);
  }

 private:
  const bool skip_;
  const std::function<std::string(const StepReport&)> culprit_;
  int in_a_row_ = 0;
};

}  // namespace

std::unique_ptr<Monitor> WatchNonFinite(const MonitorContext& context) {
  return std::make_unique<NonFinite>(context);
}

}  // namespace deeper
