// Jobs of this program on several ranks.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace deeper {

// Runs `LAUNCHER -n RANKS deeper ARGUMENTS` to its end and returns its standard output. `launcher`: a
// program, looked for in PATH, and its arguments. The job gets SIGTERM when this process ends. A job that
// fails has its last lines in the message and its own exit code, or kCommunication for one that is not
// deeper's. NotFound: there is no such launcher. Unavailable: no process can be made.
absl::StatusOr<std::string> RunJob(const std::string& launcher, int ranks,
                                   const std::vector<std::string>& arguments);

// The last lines of what a program printed.
std::string LastLines(const std::string& text);

}  // namespace deeper
