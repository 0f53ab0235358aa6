// One file of a checkpoint: a range of the flat state as the HDF5 dataset /state.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/checkpoint/checkpoint_manifest.h"

namespace deeper {

// Calls `take` with the values of the state in order, in pieces of any size.
using StatePieces = std::function<void(const std::function<void(const float* values, int64_t count)>& take)>;

// Writes the elements `range` of the state, which `pieces` provides, and flushes them to disk. The returned
// checksum is of the memory, so that it detects any change on the way to the disk and back.
absl::StatusOr<CheckpointShard> WriteCheckpointShard(const std::string& path, int64_t step, StateRange range,
                                                     const StatePieces& pieces);

// Reads shards first, first + stride, ... of a step directory to their places in `state`
// [manifest.elements()]; null: keeps nothing. DataLoss unless each whole file is what was written. Meanwhile,
// read_to(end) reports that all elements of these shards below `end` are read but not yet verified.
absl::Status ReadCheckpointShards(const std::string& directory, const CheckpointManifest& manifest,
                                  int64_t first, int64_t stride, float* state,
                                  const std::function<void(int64_t end)>& read_to = nullptr);

}  // namespace deeper
