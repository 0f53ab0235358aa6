// The shards of one split, checked against the manifest: what OpenShards (dataset.h) and VerifyShards start
// from.
#pragma once

#include <string>
#include <vector>

#include "data/manifest.h"
#include "data/shard_file.h"

namespace deeper {

// Opens every shard `manifest` lists for `split`, in order, and adds a problem for each that is missing, of
// another size, damaged, of another dataset or out of place, and for each shard file of the split that is not
// listed.
std::vector<ShardFile> OpenShardFiles(const std::string& directory, const Manifest& manifest,
                                      const std::string& split, std::vector<ShardProblem>* problems);

}  // namespace deeper
