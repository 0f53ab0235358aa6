// The machine-readable log of a run: one JSON object a line, each on disk's way as soon as it happened.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/io/file.h"
#include "nlohmann/json.hpp"
#include "trainer/engine/evaluate.h"
#include "trainer/monitor/tensorboard.h"

namespace deeper {

struct StepMetrics {
  int64_t step = 0;
  int64_t epoch = 0;
  double loss = 0;  // weighted sum over heads
  std::vector<std::pair<std::string, double>>
      head_losses;  // by Head::name; written as loss_main, loss_aux1, ...
  double lr = 0;
  double images_per_second = 0;
  double data_wait_ms = 0, compute_ms = 0;
  double read_ms = 0, decode_ms = 0, augment_ms = 0;  // of rank 0's loader threads together, a step
  double comm_exposed_ms = 0;                         // communication that backward did not hide
  double peer_wait_ms = 0;                            // waiting for the slowest rank
  int64_t samples = 0;  // which ones were trained on since the last line: a hash, the same on any ranks
  int64_t nonfinite_steps = 0;  // so far: skipped, since loss or gradients were not finite
};

// Something that happened in a run.
struct Event {
  std::string name = "";               // "eval"; empty: for the log alone
  nlohmann::ordered_json fields = {};  // an object, in the order of the file
  std::string text = "";               // a line for the log; empty: none
};

Event StepEvent(const StepMetrics& metrics);
Event EvalEvent(int64_t step, const EvalResult& result);

// A default-constructed writer discards everything: what ranks other than 0 and runs without --metrics_out
// use. Every event begins with its name as "event" and ends with its "time", in seconds since 1970. Numbers
// that are not finite are written as null. Errors (a full disk) name the file; later events are still tried.
class MetricsWriter {
 public:
  // kRestart empties an existing file; kAppend, for a resumed run, keeps it and completes a line that was cut
  // off.
  enum class Mode { kRestart, kAppend };

  MetricsWriter() = default;
  static absl::StatusOr<MetricsWriter> Open(const std::string& path, Mode mode);
  // From now on the numbers of step and eval events also go to a new event file in `directory`, tagged
  // train/NAME and eval/NAME. The next step is `first_step`.
  absl::Status AddTensorBoard(const std::string& directory, int64_t first_step);

  absl::Status Write(const Event& event);

 private:
  explicit MetricsWriter(File file) : file_(std::move(file)) {}
  absl::Status Append(std::string_view text);

  File file_;
  std::optional<EventFile> tensorboard_;
};

}  // namespace deeper
