// Tools for checkpoints: compare and reshard.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace deeper {

struct TensorDelta {
  std::string name;      // "conv1.conv.weight (momentum)"
  int64_t elements = 0;  // whose bits differ
  double max_abs = 0;    // of the differences; NaN if one is
};

struct CheckpointDelta {
  size_t tensors = 0;                  // that both have, of the same shape
  std::vector<std::string> unlike;     // in one only, or of another shape; a sentence each
  std::vector<TensorDelta> different;  // of the tensors that both have

  bool same() const { return unlike.empty() && different.empty(); }
};

// Each is a step directory, or a directory of them, whose newest valid one is used.
absl::StatusOr<CheckpointDelta> CompareCheckpoints(const std::string& a, const std::string& b);

// Writes the checkpoint `from` (as above) with this number of shards as the same step of `directory`. An
// error leaves no files; AlreadyExists: that step exists with other shards.
absl::Status ReshardCheckpoint(const std::string& from, int64_t shards, const std::string& directory);

}  // namespace deeper
