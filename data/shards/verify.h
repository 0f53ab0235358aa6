// Checks a packed dataset in full: manifest, every shard's structure and index, every sample's and every
// file's checksum.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/shards/shard_file.h"

namespace deeper {

struct VerifyReport {
  int64_t shards = 0, samples = 0;
  uint64_t bytes = 0;
  std::vector<ShardProblem> problems;  // empty: all is well
};

// Every split of `directory`, reading up to `jobs` shards at a time (0: one a core). An error only if there
// is no usable manifest to check against (ReadManifest).
absl::StatusOr<VerifyReport> VerifyShards(const std::string& directory, int jobs = 0);

}  // namespace deeper
