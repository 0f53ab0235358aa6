#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>

#include "absl/strings/str_replace.h"
#include "data/io/atomic_file.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "launch/report/report_data.h"

namespace deeper {
namespace {

constexpr CommandText kText = {
    .name = "report",
    .summary = "one HTML page of a run, of several, or of a scaling study",
    .operands = "FILE|DIR...",
    .details =
        "Reads files of `train --metrics_out`, or directories of them, and writes one self-contained page:\n"
        "losses of all heads, accuracy, images a second and where the time went, the learning rate, and\n"
        "what happened: checkpoints, resumes, skipped steps, slow ranks. Several runs are laid over each\n"
        "other. The JSON of `bench scaling` becomes scaling curves. The page works offline, in light and\n"
        "dark, and on paper.",
    .examples =
        "deeper report runs/photos/metrics.jsonl --output=report.html\n"
        "deeper report runs/photos runs/photos-lr0.02 --output=compare.html\n"
        "deeper report runs/photos --watch",
};

using Json = nlohmann::ordered_json;

// Text that ends no script element, whatever is in it.
std::string ForScript(const Json& json) {
  return absl::StrReplaceAll(json.dump(-1, ' ', false, Json::error_handler_t::replace), {{"<", "\\u003c"}});
}

bool IsDone(const Json& run) {
  return !run["events"].empty() && run["events"].back()["event"] == "done";
}

class ReportCommand final : public Command {
 public:
  ReportCommand() : Command(kText) {}

  std::vector<FlagGroup> Flags() override {
    return {{"Report",
             {{"output", &output_, "file to write"},
              {"watch", &watch_,
               "writes it anew as runs go on, until all are done; the page, once open, follows"},
              {"watch_seconds", &watch_seconds_, "between two looks"}}}};
  }

  absl::Status Run(const Invocation& call) override {
    if (call.operands.empty()) return InvalidArgument("of what? give files of --metrics_out");
    if (watch_seconds_ < 1) return InvalidArgument("--watch_seconds must be at least 1");
    std::string written;
    while (true) {
      ASSIGN_OR_RETURN(const ReportData data, ReadReportData(call.operands));
      const bool live = watch_ && !std::all_of(data.runs.begin(), data.runs.end(), IsDone);
      std::string page = Page(data, live);
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
  std::string Page(const ReportData& data, bool live) const {
    const Json json = {{"version", DEEPER_VERSION},
                       {"runs", data.runs},
                       {"studies", data.studies},
                       {"warnings", data.warnings},
                       {"reload_seconds", live ? watch_seconds_ : 0}};
    return absl::StrReplaceAll(kReportPage, {{"<!--data-->", ForScript(json)}});
  }

  void Announce(const ReportData& data) const {
    for (const std::string& warning : data.warnings) std::fprintf(stderr, "warning: %s\n", warning.c_str());
    std::printf("%s: %zu runs, %zu scaling studies\n", output_.c_str(), data.runs.size(),
                data.studies.size());
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
