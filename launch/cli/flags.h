// Flags in Abseil's syntax, and with its rules for values, bound to fields. Abseil's own registry is one for
// the whole process; here every command has its own flags, with its own defaults and help.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace deeper {

struct Flag {
  std::string name;
  std::variant<bool*, int*, int64_t*, uint64_t*, double*, std::string*>
      field;  // holds the default until parsed
  std::string help;

  std::string ValueText() const;
};

struct FlagGroup {
  const char* title;
  std::vector<Flag> flags;
};

// Sets the fields of the flags in `arguments`, in order, and leaves the others: --name=value, --name value,
// for bools also --name and --noname, and --flagfile=FILE: one argument a line, with empty lines and #
// comments, nested as deep as one likes. Returns the arguments that are no flags; all of them after "--".
// InvalidArgument: an unknown flag (with the nearest known one), a bad value, a file that cannot be read; an
// argument of a file is named with its line.
absl::StatusOr<std::vector<std::string>> ParseFlags(const std::vector<std::string>& arguments,
                                                    const std::vector<FlagGroup>& groups);

// " (did you mean NAME?)" with the one of `known` that `word` may be a misspelling of, or "".
std::string DidYouMean(std::string_view word, const std::vector<std::string>& known);

}  // namespace deeper
