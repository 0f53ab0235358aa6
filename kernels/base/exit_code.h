// The meaning of the process's exit codes. A Status carries its code from the place of the failure to main().
#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"

namespace deeper {

enum class ExitCode : int {
  kDone = 0,
  kUsage = 2,
  kData = 3,
  kCheckpoint = 4,
  kCommunication = 5,
  kNotFinite = 6,
  kPreempted = 75
};

constexpr char kExitCodePayload[] = "deeper/exit_code";

// Returns the same status, marked with the exit code of the process. An existing mark takes precedence.
inline absl::Status WithExitCode(absl::Status status, ExitCode code) {
  if (!status.ok() && !status.GetPayload(kExitCodePayload).has_value()) {
    status.SetPayload(kExitCodePayload, absl::Cord(std::to_string(static_cast<int>(code))));
  }
  return status;
}
template <class T>
absl::StatusOr<T> WithExitCode(absl::StatusOr<T> result, ExitCode code) {
  if (result.ok()) return result;
  return WithExitCode(std::move(result).status(), code);
}

// Returns kUsage for an unmarked failure.
inline ExitCode ExitCodeOf(const absl::Status& status) {
  if (status.ok()) return ExitCode::kDone;
  const auto payload = status.GetPayload(kExitCodePayload);
  return payload.has_value() ? static_cast<ExitCode>(std::stoi(std::string(*payload))) : ExitCode::kUsage;
}

}  // namespace deeper
