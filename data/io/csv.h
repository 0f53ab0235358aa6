// Parses comma-separated values as RFC 4180 describes them, and as Excel, pandas and Python write them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace deeper {

struct CsvRow {
  int64_t line = 0;                // where it begins, from 1
  std::vector<std::string> cells;  // at least one
};

// All lines that are not blank, with any line ends. A cell in double quotes may contain commas, line ends and
// doubled quotes. Blanks around other cells are removed. InvalidArgument: a quote that is not closed, or text
// behind a closing one; bytes that no text has.
absl::StatusOr<std::vector<CsvRow>> ParseCsv(absl::string_view text);

}  // namespace deeper
