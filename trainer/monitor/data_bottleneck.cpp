#include "trainer/monitor/data_bottleneck.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace deeper {
namespace {

constexpr double kTolerable = 0.1;  // of the time, waiting for data

std::string Advice(Stage stage, int workers, int cores) {
  if (stage == Stage::kRead) return "--stage_dir on a local disk, or --order=block";
  if (workers < cores) return absl::StrCat("--workers=", cores, ", the cores of the rank, or 0");
  if (stage == Stage::kDecode) return "more cores a rank, or data packed with --resize or --encoding=raw";
  return "more cores a rank, or a plainer --augment";
}

}  // namespace

std::optional<DataBottleneck::Finding> DataBottleneck::Observe(const StepReport& report,
                                                               const StageTimes& times, int workers) {
  if (found_) return std::nullopt;
  waited_ms_ += report.data_wait_ms;
  upload_ms_ += report.upload_wait_ms;
  total_ms_ += report.data_wait_ms + report.compute_ms + report.comm_wait_ms;
  if (++seen_ % window_ != 0) return std::nullopt;
  const double waited = waited_ms_ / total_ms_, uploading = upload_ms_ / total_ms_;
  StageTimes spent;
  for (size_t i = 0; i < spent.size(); ++i) spent[i] = times[i] - before_[i];
  before_ = times;
  waited_ms_ = upload_ms_ = total_ms_ = 0;
  if (std::max(waited, uploading) < kTolerable) return std::nullopt;

  found_ = true;
  if (uploading > waited) {
    return Finding{"upload",
                   absl::StrFormat("the device waits for uploads %.0f %% of the time; data packed with "
                                   "a smaller --resize would help",
                                   100 * uploading)};
  }
  constexpr std::array<const char*, kStages> kNames = {"idle", "read", "decode", "augment"};
  const auto longest = std::max_element(spent.begin() + 1, spent.end());  // whatever is idle
  const auto stage = static_cast<size_t>(longest - spent.begin());
  const double busy = spent[1] + spent[2] + spent[3];
  return Finding{
      kNames[stage],
      absl::StrFormat("the run waits for data %.0f %% of the time: of the work of %d threads reading "
                      "is %.0f %%, decoding %.0f %%, augmenting %.0f %%; what would help: %s",
                      100 * waited, workers, 100 * spent[1] / busy, 100 * spent[2] / busy,
                      100 * spent[3] / busy, Advice(static_cast<Stage>(stage), workers, cores_))};
}

}  // namespace deeper
