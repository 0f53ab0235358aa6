// The first pass of packing: decodes everything and so finds out all that the shards' indexes and the
// manifest will say, before one shard is written. The second pass then writes each sample to its place, from
// any thread. Between them only the indexes are in memory, never the samples.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/pack/pack.h"
#include "data/shards/manifest.h"
#include "data/shards/shard_format.h"
#include "data/sources/source.h"

namespace deeper {

struct PlannedShard {
  ShardHeader header;
  ShardIndex index;
  std::vector<int64_t> sources;  // the source's index of each sample
};

struct PackPlan {
  std::vector<PlannedShard> shards;
  SplitManifest manifest;  // all but its shards' bytes and xxh3
  int64_t reencoded = 0;
  std::vector<std::string> notes;
};

// Errors as Pack().
absl::StatusOr<PackPlan> PlanPacking(const PackOptions& options, const ImageSource& source,
                                     const PackProgress& progress);

}  // namespace deeper
