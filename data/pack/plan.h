// The first pass of packing: decodes every sample to compute the shards' indexes and the manifest, before it
// writes a shard. The second pass then writes each sample to its place, from any thread. Memory holds only
// the indexes between the passes, never the samples.
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
  std::vector<int64_t> sources;  // index of each sample in the source
};

struct PackPlan {
  std::vector<PlannedShard> shards;
  SplitManifest manifest;  // complete except its shards' bytes and xxh3
  int64_t reencoded = 0;
  std::vector<std::string> notes;
};

// Errors as Pack().
absl::StatusOr<PackPlan> PlanPacking(const PackOptions& options, const ImageSource& source,
                                     const PackProgress& progress);

}  // namespace deeper
