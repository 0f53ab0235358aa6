#include "launch/report/report_data.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <initializer_list>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "data/io/file.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

using Json = nlohmann::ordered_json;

absl::Status Foreign(const std::string& path, const std::string& why) {
  return InvalidArgument(path, ": ", why,
                         "; `report` reads files of `train --metrics_out` and the JSON of `bench scaling`");
}

// Six digits are more than a plot can show, and a long run has millions of numbers. What was not finite when
// it was written is null.
Json Rounded(const Json& value) {
  if (!value.is_number_float()) return value;
  const double number = value.get<double>();
  if (number == 0 || !std::isfinite(number)) return number;
  const double scale = std::pow(10, 5 - std::floor(std::log10(std::abs(number))));
  return std::isfinite(scale) ? std::round(number * scale) / scale : number;
}

// Rows of numbers, as columns by name; where a row has no such number, there is false.
class Columns {
 public:
  void Add(const Json& event) {
    for (const auto& [name, value] : event.items()) {
      if (!value.is_number() && !value.is_null()) continue;
      auto [column, added] = columns_.emplace(name, Json::array());
      if (added) column->insert(column->end(), rows_, false);
      column->push_back(name == "time" ? value : Rounded(value));
    }
    ++rows_;
    for (auto& column : columns_) column.get_ref<Json::array_t&>().resize(rows_, false);
  }

  // Forgets the rows after `step`; how many these were.
  size_t CutAfter(int64_t step) {
    if (rows_ == 0) return 0;
    const Json& steps = columns_["step"];
    const size_t before = rows_;
    while (rows_ > 0 && steps[rows_ - 1] > step) --rows_;
    for (auto& column : columns_) column.get_ref<Json::array_t&>().resize(rows_, false);
    return before - rows_;
  }

  Json Take() { return std::move(columns_); }

 private:
  Json columns_ = Json::object();
  size_t rows_ = 0;
};

bool IsAny(const Json& event, std::initializer_list<std::string_view> kinds) {
  return std::ranges::find(kinds, event["event"].get<std::string_view>()) != kinds.end();
}

bool IsEvent(const Json& event) {
  if (!event.is_object() || !event.contains("event") || !event["event"].is_string()) return false;
  const bool needs_step = !IsAny(event, {"start", "restart", "failure"});
  return event.contains("step") ? event["step"].is_number_integer() : !needs_step;
}

class RunReader {
 public:
  RunReader(const std::string& path, ReportData& data) : path_(path), data_(data) {}

  absl::Status Read(std::string_view text) {
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      ++line_;
      RETURN_IF_ERROR(ReadLine(text.substr(begin, end - begin)));
      begin = end + 1;
    }
    if (cut_line_ > 0) data_.warnings.push_back(CutOff("the last line"));
    if (events_ == 0) return Foreign(path_, "holds no event of a run");
    run_["steps"] = steps_.Take();
    run_["evals"] = evals_.Take();
    run_["repeated"] = repeated_;
    run_["cut_lines"] = cut_lines_ + (cut_line_ > 0 ? 1 : 0);
    return absl::OkStatus();
  }

  Json Take() { return std::move(run_); }

 private:
  std::string CutOff(const char* which) const { return absl::StrCat(path_, ": ", which, " is cut off"); }

  // A killed process may leave a line cut off: it is the last one, or deeper-run or a resumed run wrote on
  // below it.
  absl::Status ReadLine(std::string_view line) {
    const Json event = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    const bool is_event = IsEvent(event);
    if (cut_line_ > 0 && !(is_event && IsAny(event, {"resume", "restart", "failure"})))
      return Foreign(absl::StrCat(path_, ":", cut_line_), "is no JSON object with an \"event\"");
    if (!is_event) {
      cut_line_ = line_;
      return absl::OkStatus();
    }
    cut_lines_ += cut_line_ > 0 ? 1 : 0;
    cut_line_ = 0;
    ++events_;
    AddEvent(event);
    return absl::OkStatus();
  }

  void AddEvent(const Json& event) {
    const std::string kind = event["event"];
    if (event.contains("time")) {
      if (!run_.contains("first_time")) run_["first_time"] = event["time"];
      run_["last_time"] = event["time"];
    }
    if (kind == "step") return steps_.Add(event);
    if (kind == "eval") return evals_.Add(event);
    if (kind == "resume") {
      repeated_ += steps_.CutAfter(event.value("step", int64_t{0}));
      evals_.CutAfter(event.value("step", int64_t{0}));
    }
    Json shown = event;
    for (const char* key : {"config", "run"}) {
      if (event.contains(key)) run_[key] = event[key];
      shown.erase(key);
    }
    run_["events"].push_back(std::move(shown));
  }

  const std::string& path_;
  ReportData& data_;
  Json run_ = {{"name", ""}, {"events", Json::array()}};
  Columns steps_, evals_;
  int64_t line_ = 0, events_ = 0, cut_line_ = 0, cut_lines_ = 0;
  size_t repeated_ = 0;
};

absl::Status ReadReportFile(const std::string& path, ReportData& data) {
  ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes, ReadFile(path));
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.empty()) return Foreign(path, "is empty");
  Json whole = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (whole.is_object() && !whole.contains("event")) {
    if (whole.value("benchmark", "") != "scaling" || !whole.contains("points") || whole["points"].empty())
      return Foreign(path, "is JSON of something else");
    whole["name"] = path;
    data.studies.push_back(std::move(whole));
    return absl::OkStatus();
  }
  RunReader reader(path, data);
  RETURN_IF_ERROR(reader.Read(text));
  data.runs.push_back(reader.Take());
  data.runs.back()["name"] = path;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> FilesOf(const std::string& operand) {
  std::error_code error;
  if (!std::filesystem::is_directory(operand, error)) return std::vector<std::string>{operand};
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(operand, error)) {
    if (entry.is_regular_file(error) && entry.path().extension() == ".jsonl") files.push_back(entry.path());
  }
  if (error) return IoError("list", operand, error.value());
  if (files.empty()) return Foreign(operand, "a directory without *.jsonl");
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

absl::StatusOr<ReportData> ReadReportData(const std::vector<std::string>& operands) {
  ReportData data;
  for (const std::string& operand : operands) {
    ASSIGN_OR_RETURN(const std::vector<std::string> files, WithExitCode(FilesOf(operand), ExitCode::kData));
    for (const std::string& file : files) {
      RETURN_IF_ERROR(WithExitCode(ReadReportFile(file, data), ExitCode::kData));
    }
  }
  return data;
}

}  // namespace deeper
