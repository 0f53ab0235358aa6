// Other programs, started and awaited.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace deeper {

struct ChildResult {
  int exit_code = 0;           // 128 + the signal's number where one ended it
  std::string output, errors;  // standard output and standard error
};

// Runs arguments[0], looked for in PATH, to its end. It is told to end (SIGTERM) when this process does.
// NotFound: there is no such program. Unavailable: no process can be made.
absl::StatusOr<ChildResult> RunChild(const std::vector<std::string>& arguments);

}  // namespace deeper
