#include "data/shards/verify.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "data/io/checksum.h"
#include "data/shards/manifest.h"
#include "data/shards/validate_shards.h"
#include "kernels/base/jobs.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

// Of a shard whose structure is sound: its samples, then the rest of the file.
std::vector<ShardProblem> CheckContents(const ShardFile& shard, const ShardEntry& entry) {
  std::vector<ShardProblem> problems;
  shard.CheckSamples(&problems);
  absl::StatusOr<Hash128> hash = Xxh3OfFile(shard.path());
  if (!hash.ok()) {
    problems.push_back({shard.path(), -1, std::string(hash.status().message())});
  } else if (hash->Hex() != entry.xxh3) {
    problems.push_back(
        {shard.path(), -1,
         absl::StrCat(shard.path(), " has XXH3-128 ", hash->Hex(), ", the manifest says ", entry.xxh3)});
  }
  return problems;
}

}  // namespace

absl::StatusOr<VerifyReport> VerifyShards(const std::string& directory, int jobs) {
  ASSIGN_OR_RETURN(Manifest manifest, ReadManifest(directory));
  VerifyReport report;
  for (const auto& [name, split] : manifest.splits) {
    std::vector<ShardFile> shards;
    const std::vector<ShardProblem> unsound =
        VisitShards(directory, manifest, name, [&](ShardFile shard) { shards.push_back(std::move(shard)); });
    report.problems.insert(report.problems.end(), unsound.begin(), unsound.end());
    std::vector<std::vector<ShardProblem>> found(shards.size());
    RETURN_IF_ERROR(RunJobs(jobs, static_cast<int64_t>(shards.size()), [&](int64_t i) {
      const ShardFile& shard = shards[static_cast<size_t>(i)];
      found[static_cast<size_t>(i)] =
          CheckContents(shard, split.shards[static_cast<size_t>(shard.header().shard_index)]);
      return absl::OkStatus();
    }));
    for (size_t i = 0; i < shards.size(); ++i) {
      report.shards += 1;
      report.samples += shards[i].header().samples;
      report.bytes += shards[i].bytes();
      report.problems.insert(report.problems.end(), found[i].begin(), found[i].end());
    }
  }
  return report;
}

}  // namespace deeper
