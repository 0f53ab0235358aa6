// Opens a packed split, as the one rank of a job does.
#pragma once

#include <memory>
#include <string>

#include "data/shards/read_shards.h"
#include "kernels/base/status.h"

namespace deeper {

inline absl::StatusOr<std::unique_ptr<Dataset>> OpenShards(const std::string& dir, const std::string& split) {
  ASSIGN_OR_RETURN(std::string index, ReadSplitIndex(dir, split));
  return OpenSplit(dir, std::move(index));
}

}  // namespace deeper
