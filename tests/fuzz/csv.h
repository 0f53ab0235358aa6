// What ParseCsv promises.
#pragma once

#include "data/io/csv.h"
#include "tests/fuzz/fuzz.h"

// Whether it could be read.
inline bool CheckCsv(absl::string_view text) {
  const auto rows = deeper::ParseCsv(text);
  if (!rows.ok()) return false;
  size_t bytes = 0;
  int64_t line = 0;
  for (const deeper::CsvRow& row : *rows) {
    FUZZ_CHECK(row.line > line && !row.cells.empty());
    line = row.line;
    for (const std::string& cell : row.cells) bytes += cell.size();
    bytes += row.cells.size() - 1;  // commas
  }
  FUZZ_CHECK(bytes <= text.size() && line <= static_cast<int64_t>(text.size()) + 1);
  return true;
}
