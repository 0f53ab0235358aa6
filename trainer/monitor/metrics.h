// The machine-readable log of a run: one JSON object per line, written as soon as the event happens.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/io/file.h"
#include "nlohmann/json.hpp"
#include "trainer/engine/evaluate.h"
#include "trainer/monitor/tensorboard.h"

namespace deeper {

// Something that happened in a run.
struct Event {
  std::string name = {};               // "eval"; empty: for the log only
  nlohmann::ordered_json fields = {};  // an object, in the order of the file
  std::string text = {};               // a line for the log; empty: none
};

Event EvalEvent(int64_t step, const EvalResult& result, const std::string& split, Tta tta = Tta::kNone);

// A default-constructed writer discards everything; ranks other than 0 and runs without --metrics_out use it.
// Every event begins with its name as "event" and ends with its "time", in seconds since 1970. Numbers that
// are not finite are written as null. Errors (a full disk) name the file; later events are still attempted.
class MetricsWriter {
 public:
  // kRestart moves a file of an earlier run aside, to moved_to(); kAppend, for a resumed run, continues it
  // and ends a line that was cut off. AddFile and Open create the directory of `path`.
  enum class Mode { kRestart, kAppend };

  MetricsWriter() = default;
  static absl::StatusOr<MetricsWriter> Open(const std::string& path, Mode mode);
  absl::Status AddFile(const std::string& path, Mode mode);
  // Where the earlier run's file is now; empty if there was none.
  const std::string& moved_to() const { return moved_to_; }
  // From now on the numbers of step and eval events also go to a new event file in `directory`, tagged
  // train/NAME and eval/NAME. The next step is `first_step`.
  absl::Status AddTensorBoard(const std::string& directory, int64_t first_step);

  absl::Status Write(const Event& event);

 private:
  absl::Status Append(std::string_view text);

  File file_;
  std::string moved_to_;
  std::optional<EventFile> tensorboard_;
};

}  // namespace deeper
