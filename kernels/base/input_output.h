// Failures of files and streams, whose exit code is ExitCode::kData unless a caller sets another one.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/cord.h"

namespace deeper {

constexpr char kInputOutputPayload[] = "deeper/input_output";

// Returns the same status, marked.
inline absl::Status AsInputOutput(absl::Status status) {
  if (!status.ok()) status.SetPayload(kInputOutputPayload, absl::Cord());
  return status;
}

inline bool IsInputOutput(const absl::Status& status) {
  return status.GetPayload(kInputOutputPayload).has_value();
}

}  // namespace deeper
