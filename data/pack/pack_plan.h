// The first pass of packing: decodes everything and so finds out all that the shards' indexes and the
// manifest will say, before one shard is written. The second pass then writes each sample to its place, from
// any thread. Between them only the indexes are in memory, never the samples.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/pack/pack.h"
#include "data/pack/pack_source.h"
#include "data/shards/manifest.h"
#include "data/shards/shard_format.h"

namespace deeper {

struct PlannedShard {
  std::string file;
  ShardHeader header;
  ShardIndex index;
  std::vector<int64_t> sources;  // the source's index of each sample
};

struct PackPlan {
  std::vector<PlannedShard> shards;
  SplitManifest manifest;  // all but its shards' entries
  int64_t reencoded = 0;
};

// Errors as Pack().
absl::StatusOr<PackPlan> PlanPacking(const PackOptions& options, const PackSource& source,
                                     const PackProgress& progress);

// Reports one phase's progress from many threads.
class ProgressCounter {
 public:
  ProgressCounter(const PackProgress& progress, const char* phase, int64_t total)
      : progress_(progress), phase_(phase), total_(total) {}
  void Add(int64_t samples) {
    std::scoped_lock lock(mutex_);
    done_ += samples;
    if (progress_) progress_(phase_, done_, total_);
  }

 private:
  const PackProgress& progress_;
  const char* phase_;
  int64_t total_, done_ = 0;
  std::mutex mutex_;
};

}  // namespace deeper
