// A report: its page, and what the page shows, read from what commands wrote and brought into the shape that
// launch/report/report.js takes.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace deeper {

// The page without its data. CMake makes it of what is in launch/report/ and of dygraphs.
extern const char kReportPage[];

struct ReportData {
  // Of a run: "name"; "config" and "run", of its latest start or resume; "steps" and "evals", columns of
  // equal length by name; "events", all others in order; "first_time" and "last_time" of what it wrote;
  // "repeated", logged steps that were done again after a resume; "cut_lines".
  std::vector<nlohmann::ordered_json> runs;
  // `deeper bench scaling`'s, with a "name".
  std::vector<nlohmann::ordered_json> studies;
  // About files that were used nevertheless.
  std::vector<std::string> warnings;
};

// Each operand is a file of --metrics_out, the JSON of a scaling study, or a directory with some of the
// former (*.jsonl). Errors name the file, and the line where there is one; they carry ExitCode::kData.
absl::StatusOr<ReportData> ReadReportData(const std::vector<std::string>& operands);

}  // namespace deeper
