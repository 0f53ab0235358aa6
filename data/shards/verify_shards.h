// Checks packed shards against their manifest: their structure when a split is opened, everything on
// `verify`.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/shards/manifest.h"
#include "data/shards/shard_file.h"

namespace deeper {

// Opens every shard that `manifest` lists for `split`, in order, and passes the valid ones to `visit`.
// Returns the problems: shards that are missing, damaged, of another size or dataset, or out of place, and
// shard files of the split that are not listed.
std::vector<std::string> VisitShards(const std::string& directory, const Manifest& manifest,
                                     const std::string& split, const std::function<void(ShardFile)>& visit);

struct VerifyReport {
  int64_t shards = 0, samples = 0;
  uint64_t bytes = 0;
  std::vector<std::string> problems;  // each names the file; empty if there are none
};

// Checks every split of `directory` completely: manifest, every shard's structure and index, every sample's
// and every file's checksum. Reads up to `jobs` shards at a time (0: one per core). An error only if there is
// no usable manifest (ReadManifest).
absl::StatusOr<VerifyReport> VerifyShards(const std::string& directory, int jobs = 0);

}  // namespace deeper
