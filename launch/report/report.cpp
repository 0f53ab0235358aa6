#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <initializer_list>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "data/io/atomic_file.h"
#include "data/io/file.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "nlohmann/json.hpp"

namespace deeper {

// The page without its data. CMake builds it from the files in launch/report/ and dygraphs.
extern const char kReportPage[];

namespace {

constexpr CommandText kText = {
    .name = "report",
    .summary = "writes an HTML page about runs, evaluations or scaling studies",
    .operands = "FILE|DIR...",
    .details =
        R"(Reads files of `train --metrics_out`, or directories with such files, and writes one self-contained
page. The page shows losses of all heads, accuracy, images per second, the parts of the time per step, the
learning rate, and events: checkpoints, resumes, skipped steps, slow ranks. Curves of several runs share their
plots. The JSON of `eval --report` becomes the accuracy of each class, the confusion matrix and pictures of
the most confident mistakes, that of `bench scaling` scaling curves. The page works offline, in light and dark
mode, and on paper.)",
    .examples = R"(deeper report runs/photos/metrics.jsonl --output=report.html
deeper report runs/photos runs/photos-lr0.02 --output=compare.html
deeper report runs/photos --watch)",
};

using Json = nlohmann::ordered_json;

absl::Status Foreign(const std::string& path, const std::string& why) {
  return InvalidArgument(
      path, ": ", why,
      "; `report` reads files of `train --metrics_out` and the JSON of `eval --report` and "
      "`bench scaling`");
}

// Six digits are enough for a plot, and a long run has millions of numbers. Numbers that were not finite are
// null.
Json Rounded(const Json& value) {
  if (!value.is_number_float()) return value;
  const double number = value.get<double>();
  if (number == 0 || !std::isfinite(number)) return number;
  const double scale = std::pow(10, 5 - std::floor(std::log10(std::abs(number))));
  return std::isfinite(scale) ? std::round(number * scale) / scale : number;
}

// Rows of numbers, stored as columns by name. A row without a number has false there.
class Columns {
 public:
  void Add(const Json& event) {
    for (const auto& [name, value] : event.items()) {
      if (!value.is_number() && !value.is_null()) continue;
      auto [column, added] = columns_.emplace(name, Json::array());
      if (added) column->insert(column->end(), rows_, false);
      column->push_back(name == "time" ? value : Rounded(value));
    }
    Resize(rows_ + 1);
  }

  // Removes the rows after `step`, and returns their number.
  size_t CutAfter(int64_t step) {
    const size_t before = rows_;
    size_t left = before;
    while (left > 0 && columns_["step"][left - 1] > step) --left;
    Resize(left);
    return before - left;
  }

  Json Take() { return std::move(columns_); }

 private:
  void Resize(size_t rows) {
    rows_ = rows;
    if (rows == 0) columns_ = Json::object();  // report.js asks whether a column exists
    for (auto& column : columns_) column.get_ref<Json::array_t&>().resize(rows, false);
  }

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

// Reads a file of --metrics_out as a run of ReadReportData.
class RunReader {
 public:
  RunReader(const std::string& path, Json& warnings)
      : path_(path), warnings_(warnings), run_{{"name", path}, {"events", Json::array()}} {}

  absl::StatusOr<Json> Read(absl::string_view text) {
    absl::ConsumeSuffix(&text, "\n");
    for (const absl::string_view line : absl::StrSplit(text, '\n')) {
      ++line_;
      RETURN_IF_ERROR(ReadLine(line));
    }
    if (cut_line_ > 0) warnings_.push_back(absl::StrCat(path_, ": the last line is incomplete"));
    if (cut_lines_ == line_) return Foreign(path_, "has no event of a run");
    run_["steps"] = steps_.Take();
    run_["evals"] = evals_.Take();
    run_["diagnoses"] = diagnoses_.Take();
    run_["repeated"] = repeated_;
    run_["cut_lines"] = cut_lines_;
    return std::move(run_);
  }

 private:
  // A killed process may leave its last line incomplete. deeper-run, a resumed run or `eval` may have added
  // lines after it.
  absl::Status ReadLine(absl::string_view line) {
    const Json event = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    const bool is_event = IsEvent(event);
    if (cut_line_ > 0 && !(is_event && IsAny(event, {"resume", "restart", "failure", "eval"})))
      return Foreign(absl::StrCat(path_, ":", cut_line_), "is no JSON object with an \"event\"");
    cut_line_ = is_event ? 0 : line_;
    cut_lines_ += is_event ? 0 : 1;
    if (is_event) AddEvent(event);
    return absl::OkStatus();
  }

  void AddEvent(const Json& event) {
    const std::string kind = event["event"];
    done_ = kind == "done" || (done_ && kind == "eval");
    if (event.contains("time")) {
      if (!run_.contains("first_time")) run_["first_time"] = event["time"];
      if (!done_ || kind == "done") run_["last_time"] = event["time"];
    }
    if (kind == "step") return steps_.Add(event);
    if (kind == "eval") return AddEvaluation(event);
    if (kind == "diagnosis") diagnoses_.Add(event);
    if (kind == "resume") {
      repeated_ += steps_.CutAfter(event.value("step", int64_t{0}));
      evals_.CutAfter(event.value("step", int64_t{0}));
      diagnoses_.CutAfter(event.value("step", int64_t{0}));
    }
    if (kind == "diagnosis") {  // shown when it says something new
      const Json before = std::exchange(diagnosis_, event.value("what", Json("")));
      if (diagnosis_ == Json("") || diagnosis_ == before) return;
    }
    Json shown = event;
    for (const char* key : {"config", "run"}) {
      if (event.contains(key)) run_[key] = event[key];
      shown.erase(key);
    }
    run_["events"].push_back(std::move(shown));
  }

  // The curve has the evaluations of one split, that of the first, without test-time augmentation.
  void AddEvaluation(const Json& event) {
    const Json split = event.value("split", Json()), tta = event.value("tta", Json("none"));
    if (split_.is_null()) split_ = split;
    if (split == split_ && tta == "none") return evals_.Add(event);
    warnings_.push_back(absl::StrCat(path_, ": an evaluation of split ", split.dump(),
                                     ", test-time augmentation ", tta.dump(), ", is not in the curve"));
  }

  const std::string& path_;
  Json& warnings_;
  Json run_, split_, diagnosis_ = "";
  bool done_ = false;  // evaluations that follow are those of `deeper eval`
  Columns steps_, evals_, diagnoses_;
  int64_t line_ = 0, cut_line_ = 0, cut_lines_ = 0;  // cut_line_: the previous line, if it is incomplete
  size_t repeated_ = 0;
};

absl::Status ReadReportFile(const std::string& path, Json& data) {
  ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes, ReadFile(path));
  const absl::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.empty()) return Foreign(path, "is empty");
  Json whole = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!whole.is_object() || whole.contains("event")) {
    ASSIGN_OR_RETURN(Json run, RunReader(path, data["warnings"]).Read(text));
    data["runs"].push_back(std::move(run));
    return absl::OkStatus();
  }
  const bool evaluation = whole.value("report", Json()) == "evaluation" && whole.contains("confusion") &&
                          whole.contains("mistakes");
  const bool study =
      whole.value("benchmark", Json()) == "scaling" && whole.contains("points") && !whole["points"].empty();
  if (!evaluation && !study) return Foreign(path, "is other JSON");
  whole["name"] = path;
  data[evaluation ? "evaluations" : "studies"].push_back(std::move(whole));
  return absl::OkStatus();
}

constexpr char kSweepRuns[] = "runs.jsonl";  // of deeper-sweep, beside the metrics of its runs

absl::StatusOr<std::vector<std::string>> FilesOf(const std::string& operand) {
  std::error_code error;
  if (!std::filesystem::is_directory(operand, error)) return std::vector<std::string>{operand};
  std::vector<std::string> files;
  for (std::filesystem::directory_iterator entry(operand, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::filesystem::path& path = entry->path();
    std::error_code ignored;  // of a link to nothing
    if (entry->is_regular_file(ignored) && path.extension() == ".jsonl" && path.filename() != kSweepRuns)
      files.push_back(path);
  }
  if (error) return IoError("list", operand, error.value());
  if (files.empty()) return Foreign(operand, "has no *.jsonl files");
  std::sort(files.begin(), files.end());
  return files;
}

// The input of report.js. "runs", each with "name"; "config" and "run" of its latest start or resume;
// "steps", "evals" and "diagnoses", columns of equal length by name; "events", all other events in order, and
// the diagnoses with a warning that the previous one did not have; "first_time" and "last_time" of its
// events; "repeated", the number of logged steps that were repeated after a resume; "cut_lines".
// "evaluations" of `eval --report` and "studies" of scaling, each with "name". "warnings": about files that
// are used despite a problem. Each operand is a file of --metrics_out, the JSON of an evaluation or a study,
// or a directory with files of the first kind (*.jsonl). Errors name the file, and the line if there is one.
absl::StatusOr<Json> ReadReportData(const std::vector<std::string>& operands) {
  Json data = {{"version", DEEPER_VERSION},
               {"runs", Json::array()},
               {"evaluations", Json::array()},
               {"studies", Json::array()},
               {"warnings", Json::array()}};
  for (const std::string& operand : operands) {
    ASSIGN_OR_RETURN(const std::vector<std::string> files, FilesOf(operand));
    for (const std::string& file : files) RETURN_IF_ERROR(ReadReportFile(file, data));
  }
  return data;
}

// `failure`: deeper-run does not restart the job again.
bool IsDone(const Json& run) {
  return !run["events"].empty() && IsAny(run["events"].back(), {"done", "failure"});
}

class ReportCommand final : public Command {
 public:
  ReportCommand() : Command(kText) {}

  std::vector<FlagGroup> Flags() override {
    return {{"Report",
             {{"output", &output_, "file to write"},
              {"watch", &watch_, "rewrite the file until all runs are done; an open page reloads"},
              {"watch_seconds", &watch_seconds_, "seconds between two updates", Range(1)}}}};
  }

  absl::Status Run(const Invocation& call) override {
    if (call.operands.empty())
      return InvalidArgument("no input; pass at least one metrics file or run directory");
    if (output_.empty()) return InvalidArgument("needs --output=FILE");
    std::string written;
    while (true) {
      ASSIGN_OR_RETURN(Json data, WithExitCode(ReadReportData(call.operands), ExitCode::kData));
      const bool live = watch_ && !std::ranges::all_of(data["runs"], IsDone);
      data["reload_seconds"] = live ? watch_seconds_ : 0;
      const std::string json = data.dump(-1, ' ', false, Json::error_handler_t::replace);
      const std::string harmless =
          absl::StrReplaceAll(json, {{"<", "\\u003c"}});  // cannot end the script element
      std::string page = absl::StrReplaceAll(kReportPage, {{"<!--data-->", harmless}});
      if (page != written) {
        RETURN_IF_ERROR(WriteFileAtomically(output_, page));
        if (!watch_ || written.empty()) Announce(data);
        written = std::move(page);
      }
      if (!live) return absl::OkStatus();
      std::this_thread::sleep_for(std::chrono::seconds(watch_seconds_));
    }
  }

 private:
  void Announce(const Json& data) const {
    for (const std::string warning : data["warnings"]) std::fprintf(stderr, "warning: %s\n", warning.c_str());
    std::printf("%s: %zu runs, %zu evaluations, %zu scaling studies\n", output_.c_str(), data["runs"].size(),
                data["evaluations"].size(), data["studies"].size());
    std::fflush(stdout);
  }

  std::string output_ = "report.html";
  bool watch_ = false;
  int watch_seconds_ = 5;
};

}  // namespace

std::unique_ptr<Command> MakeReport() {
  return std::make_unique<ReportCommand>();
}

}  // namespace deeper
