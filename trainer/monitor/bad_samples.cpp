#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "comm/agree.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "trainer/monitor/monitor.h"

namespace deeper {
namespace {

class BadSamples final : public Monitor {
 public:
  explicit BadSamples(const MonitorContext& context)
      : comm_(context.comm), loader_(context.loader), allowed_(context.allow_bad) {}

  absl::Status Observe(const Observation& now, std::vector<Event>& events) override {
    if (allowed_ == 0 || !now.is_logged) return absl::OkStatus();
    const std::vector<std::string> news = GatherNews();
    if (std::ssize(known_) > allowed_) {
      return WithExitCode(DataLoss(known_.size(), " samples cannot be read, --allow_bad=", allowed_,
                                   " allows fewer; the last one: ", news.back()),
                          ExitCode::kData);
    }
    for (const std::string& what : news) {
      events.push_back({"bad_sample", {{"step", now.step}, {"what", what}}, "warning: replaced " + what});
    }
    return absl::OkStatus();
  }

  std::string Summary() const override {
    if (known_.empty()) return "";
    return absl::StrCat("warning: ", known_.size(), " samples could not be read and were replaced by others");
  }

 private:
  // The error of each bad sample that is new since the last call; the same on all ranks.
  std::vector<std::string> GatherNews() {
    std::string mine;  // one line per sample: number, tab, error
    for (const auto& [sample, what] : loader_.bad_samples())
      if (!known_.contains(sample)) absl::StrAppend(&mine, sample, "\t", what, "\n");
    const auto bytes = static_cast<int64_t>(mine.size());
    std::vector<int64_t> all(static_cast<size_t>(comm_.size()));
    comm_.AllGather(&bytes, all.data(), sizeof bytes, {}).Wait();

    std::vector<std::string> news;
    for (int rank = 0; rank < comm_.size(); ++rank) {
      if (all[static_cast<size_t>(rank)] == 0) continue;
      std::string theirs = mine;
      Broadcast(comm_, rank, &theirs);
      for (const absl::string_view line : absl::StrSplit(theirs, '\n', absl::SkipEmpty())) {
        const std::pair<std::string, std::string> fields = absl::StrSplit(line, absl::MaxSplits('\t', 1));
        int64_t sample = 0;
        if (absl::SimpleAtoi(fields.first, &sample) && known_.insert(sample).second)
          news.push_back(fields.second);
      }
    }
    return news;
  }

  Communicator& comm_;
  const Loader& loader_;
  const int64_t allowed_;
  std::set<int64_t> known_;  // of all ranks
};

}  // namespace

std::unique_ptr<Monitor> WatchBadSamples(const MonitorContext& context) {
  return std::make_unique<BadSamples>(context);
}

}  // namespace deeper
