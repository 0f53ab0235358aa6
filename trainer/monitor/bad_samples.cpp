#include "trainer/monitor/bad_samples.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "comm/agree.h"
#include "kernels/base/exit_code.h"

namespace deeper {

absl::StatusOr<std::vector<std::string>> BadSamples::Gather(const Loader& loader) {
  std::string mine;  // a line each: number, tab, what is wrong
  for (const auto& [sample, what] : loader.bad_samples())
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
  if (std::ssize(known_) <= allowed_) return news;
  return WithExitCode(
      absl::DataLossError(absl::StrCat(known_.size(), " samples cannot be read, --allow_bad=", allowed_,
                                       " allows fewer; the last one: ", news.back())),
      ExitCode::kData);
}

}  // namespace deeper
