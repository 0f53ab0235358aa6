// The shards of one split, checked against the manifest: what ReadSplitIndex (dataset.h) and VerifyShards
// start from.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "data/shards/manifest.h"
#include "data/shards/shard_file.h"

namespace deeper {

// Opens every shard `manifest` lists for `split`, in order, and hands the sound ones to `visit`. Returns a
// problem for each that is missing, of another size, damaged, of another dataset or out of place, and for
// each shard file of the split that is not listed.
std::vector<ShardProblem> VisitShards(const std::string& directory, const Manifest& manifest,
                                      const std::string& split, const std::function<void(ShardFile)>& visit);

}  // namespace deeper
