// Checks packed shards against their manifest: the structure when a split is opened, all on `verify`.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/shards/manifest.h"
#include "data/shards/shard_file.h"

namespace deeper {

// Opens every shard `manifest` lists for `split`, in order, and hands the sound ones to `visit`. Says what is
// wrong with each that is missing, of another size, damaged, of another dataset or out of place, and with
// each shard file of the split that is not listed.
std::vector<std::string> VisitShards(const std::string& directory, const Manifest& manifest,
                                     const std::string& split, const std::function<void(ShardFile)>& visit);

struct VerifyReport {
  int64_t shards = 0, samples = 0;
  uint64_t bytes = 0;
  std::vector<std::string> problems;  // each names the file; empty: all is well
};

// Checks every split of `directory` in full: manifest, every shard's structure and index, every sample's and
// every file's checksum, reading up to `jobs` shards at a time (0: one a core). An error only if there is no
// usable manifest to check against (ReadManifest).
absl::StatusOr<VerifyReport> VerifyShards(const std::string& directory, int jobs = 0);

}  // namespace deeper
