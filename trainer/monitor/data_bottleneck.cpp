#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "trainer/monitor/monitor.h"

namespace deeper {
namespace {

constexpr int64_t kWindow = 50;     // steps
constexpr double kTolerable = 0.1;  // share of the time spent waiting for data

std::string Advice(Stage stage, int workers, int cores) {
  if (stage == Stage::kRead) return "--stage_dir on a local disk, or --order=block";
  if (workers < cores) return absl::StrCat("--workers=", cores, " (the cores of the rank) or --workers=0");
  if (stage == Stage::kDecode) return "more cores per rank, or data packed with --resize or --encoding=raw";
  return "more cores per rank, or a simpler --augment";
}

class DataBottleneck final : public Monitor {
 public:
  explicit DataBottleneck(const MonitorContext& context) : loader_(context.loader), cores_(context.cores) {}

  // Warns once, after the first window in which steps waited for a tenth of the time.
  absl::Status Observe(const Observation& now, std::vector<Event>& events) override {
    if (found_) return absl::OkStatus();
    const StepReport& report = now.report;
    waited_ms_ += report.data_wait_ms;
    upload_ms_ += report.upload_wait_ms;
    total_ms_ += report.data_wait_ms + report.compute_ms + report.comm_wait_ms;
    if (++seen_ % kWindow != 0) return absl::OkStatus();
    const double waited = waited_ms_ / total_ms_, uploading = upload_ms_ / total_ms_;
    const StageTimes times = loader_.times();
    StageTimes spent;
    for (size_t i = 0; i < spent.size(); ++i) spent[i] = times[i] - before_[i];
    before_ = times;
    waited_ms_ = upload_ms_ = total_ms_ = 0;
    if (std::max(waited, uploading) < kTolerable) return absl::OkStatus();

    found_ = true;
    const auto found = [&](const char* stage, const std::string& what) {
      events.push_back(
          {"bottleneck", {{"step", now.step}, {"stage", stage}, {"what", what}}, "warning: " + what});
    };
    if (uploading > waited) {
      found("upload", absl::StrFormat("the device waits for uploads %.0f %% of the time; to reduce this, use "
                                      "data packed with a smaller --resize",
                                      100 * uploading));
      return absl::OkStatus();
    }
    constexpr std::array<const char*, kStages> kNames = {"idle", "read", "decode", "augment"};
    const auto longest = std::max_element(spent.begin() + 1, spent.end());  // without idle
    const auto stage = static_cast<size_t>(longest - spent.begin());
    const double busy = spent[1] + spent[2] + spent[3];
    const int workers = loader_.workers();
    found(kNames[stage],
          absl::StrFormat("training waits for data %.0f %% of the time; the work of %d loader threads is "
                          "%.0f %% reading, %.0f %% decoding, %.0f %% augmenting; to reduce this, use %s",
                          100 * waited, workers, 100 * spent[1] / busy, 100 * spent[2] / busy,
                          100 * spent[3] / busy, Advice(static_cast<Stage>(stage), workers, cores_)));
    return absl::OkStatus();
  }

 private:
  const Loader& loader_;
  const int cores_;
  int64_t seen_ = 0;
  double waited_ms_ = 0, upload_ms_ = 0, total_ms_ = 0;
  StageTimes before_{};  // at the start of the window
  bool found_ = false;
};

}  // namespace

std::unique_ptr<Monitor> WatchDataBottleneck(const MonitorContext& context) {
  return std::make_unique<DataBottleneck>(context);
}

}  // namespace deeper
