// manifest.json of a checkpoint: what the state is, which training it belongs to, and the checksums of its
// shards. docs/formats.md describes every field.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/io/checksum.h"
#include "nlohmann/json.hpp"
#include "trainer/checkpoint/state_table.h"

namespace deeper {

// Where training stands in its data: the next global batch to train on is `batch` of `epoch`.
struct DataState {
  std::string dataset_uuid;
  uint64_t seed = 0;
  int64_t global_batch = 0;
  std::string order;
  int64_t epoch = 0, batch = 0;
  int64_t samples_trained = 0;

  friend bool operator==(const DataState&, const DataState&) = default;
};

struct CheckpointShard {
  uint64_t bytes = 0;
  Hash128 hash;  // of the whole file
};

struct CheckpointManifest {
  int64_t step = 0;
  DataState data;
  nlohmann::json config;                // an object; "model" and "num_classes" name the network
  std::vector<CheckpointShard> shards;  // as many as there were ranks
  std::vector<TensorEntry> tensors;     // back to back
  std::optional<double> top1 = {};      // of an evaluation of these weights

  int64_t elements() const { return tensors.empty() ? 0 : tensors.back().first + tensors.back().count; }
};

// Elements of the flat state that shard `shard` of `shard_count` holds.
struct StateRange {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};
StateRange ShardRange(int64_t elements, int64_t shard, int64_t shard_count);

std::string ShardName(int64_t shard, int64_t shard_count);  // "shard-00000-of-00004.h5"

// The file's text. It ends with a checksum of all that precedes it.
std::string RenderCheckpointManifest(const CheckpointManifest& manifest);

// DataLoss: any byte differs from what RenderCheckpointManifest wrote; Unimplemented: a version that this
// build does not read. `path` is for messages.
absl::StatusOr<CheckpointManifest> ParseCheckpointManifest(const std::string& text, const std::string& path);

}  // namespace deeper
