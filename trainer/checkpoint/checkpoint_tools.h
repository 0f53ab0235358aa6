// What people do to checkpoints besides training from them.
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
  std::vector<std::string> unlike;     // what only one has, or has in another shape; a sentence each
  std::vector<TensorDelta> different;  // of the tensors that both have

  bool same() const { return unlike.empty() && different.empty(); }
};

// Each is a step directory, or a directory of them, whose newest valid one is taken.
absl::StatusOr<CheckpointDelta> CompareCheckpoints(const std::string& a, const std::string& b);

// Writes the checkpoint `from` (as above), cut into so many shards, as the same step of `directory`. An error
// leaves nothing behind; AlreadyExists: that step is there, with other shards.
absl::Status ReshardCheckpoint(const std::string& from, int64_t shards, const std::string& directory);

}  // namespace deeper
