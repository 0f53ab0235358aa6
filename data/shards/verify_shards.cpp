#include "data/shards/verify_shards.h"

#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "data/io/checksum.h"
#include "kernels/base/jobs.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

// How a valid shard differs from the expected one; empty if it does not.
std::string Mismatch(const ShardFile& shard, const ShardHeader& expected,
                     const std::vector<std::string>& classes) {
  const ShardHeader& header = shard.header();
  if (header.uuid != expected.uuid) {
    return absl::StrCat(" belongs to another dataset (dataset_uuid ", header.uuid, ", the manifest's is ",
                        expected.uuid, ")");
  }
  if (header.shard_index != expected.shard_index) {
    return absl::StrCat(" is a duplicate of shard ", header.shard_index, ", in the place of shard ",
                        expected.shard_index);
  }
  const bool same = header == expected && shard.index().classes.bytes == FixedStrings(classes).bytes;
  return same ? "" : " has attributes or classes other than the manifest's";
}

void AddUnlistedShards(const std::string& directory, const std::string& split,
                       const std::set<std::string>& listed, std::vector<std::string>* problems) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename();
    if (IsShardFileName(name, split) && !listed.contains(name)) {
      problems->push_back(entry.path().string() +
                          " is not in the manifest: a duplicate, or left over from another packing");
    }
  }
}

// Checks a shard whose structure is valid: its samples, then the rest of the file.
std::vector<std::string> CheckContents(const ShardFile& shard, const ShardEntry& entry) {
  std::vector<std::string> problems = shard.CheckSamples();
  absl::StatusOr<Hash128> hash = Xxh3OfFile(shard.path());
  if (!hash.ok()) {
    problems.emplace_back(hash.status().message());
  } else if (hash->Hex() != entry.xxh3) {
    problems.push_back(
        absl::StrCat(shard.path(), " has XXH3-128 ", hash->Hex(), ", the manifest says ", entry.xxh3));
  }
  return problems;
}

}  // namespace

std::vector<std::string> VisitShards(const std::string& directory, const Manifest& manifest,
                                     const std::string& split, const std::function<void(ShardFile)>& visit) {
  const SplitManifest& listing = manifest.splits.at(split);
  std::vector<std::string> problems;
  std::set<std::string> listed;
  for (size_t i = 0; i < listing.shards.size(); ++i) {
    const ShardEntry& entry = listing.shards[i];
    const std::string path = absl::StrCat(directory, "/", entry.file);
    listed.insert(entry.file);
    absl::StatusOr<ShardFile> shard = ShardFile::Open(path);
    std::string what(shard.status().message());
    if (shard.ok() && shard->bytes() != entry.bytes) {
      what = absl::StrCat(path, " has ", shard->bytes(), " bytes, the manifest says ", entry.bytes);
    } else if (shard.ok()) {
      what = Mismatch(*shard, HeaderOf(listing, split, i), manifest.classes);
      if (!what.empty()) what.insert(0, path);
    }
    if (what.empty()) {
      visit(*std::move(shard));
    } else {
      problems.push_back(what);
    }
  }
  AddUnlistedShards(directory, split, listed, &problems);
  return problems;
}

absl::StatusOr<VerifyReport> VerifyShards(const std::string& directory, int jobs) {
  ASSIGN_OR_RETURN(Manifest manifest, ReadManifest(directory));
  VerifyReport report;
  for (const auto& [name, listing] : manifest.splits) {
    const SplitManifest& split = listing;                          // a lambda cannot capture `listing`
    std::vector<std::pair<std::string, const ShardEntry*>> sound;  // paths: there may be more than open files
    const std::vector<std::string> unsound =
        VisitShards(directory, manifest, name, [&](const ShardFile& shard) {
          sound.emplace_back(shard.path(), &split.shards[static_cast<size_t>(shard.header().shard_index)]);
          report.shards += 1;
          report.samples += shard.header().samples;
          report.bytes += shard.bytes();
        });
    report.problems.insert(report.problems.end(), unsound.begin(), unsound.end());
    std::vector<std::vector<std::string>> found(sound.size());
    RETURN_IF_ERROR(RunJobs(jobs, std::ssize(sound), [&](int64_t i) -> absl::Status {
      const auto& [path, entry] = sound[static_cast<size_t>(i)];
      ASSIGN_OR_RETURN(const ShardFile shard, ShardFile::Open(path));
      found[static_cast<size_t>(i)] = CheckContents(shard, *entry);
      return absl::OkStatus();
    }));
    for (const std::vector<std::string>& problems : found)
      report.problems.insert(report.problems.end(), problems.begin(), problems.end());
  }
  return report;
}

}  // namespace deeper
