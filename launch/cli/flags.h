// Flags in Abseil's syntax, and with its rules for values, bound to fields. Abseil's own registry is one for
// the whole process; here every command has its own flags, with its own defaults and help.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "trainer/run/flag.h"

namespace deeper {

// Sets the fields of the flags in `arguments`, in order, and leaves the others: --name=value, --name value,
// for bools also --name and --noname, and --flagfile=FILE: one argument a line, with empty lines and #
// comments, nested as deep as one likes. Returns the arguments that are no flags; all of them after "--".
// InvalidArgument: an unknown flag (with the nearest known one), a bad value, a file that cannot be read; an
// argument of a file is named with its line.
absl::StatusOr<std::vector<std::string>> ParseFlags(const std::vector<std::string>& arguments,
                                                    const std::vector<FlagGroup>& groups);

}  // namespace deeper
