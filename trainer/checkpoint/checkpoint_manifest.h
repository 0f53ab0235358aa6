// The tensors of a model's state, and manifest.json of a checkpoint: what the state is, which training it
// belongs to, and the checksums of its shards. docs/reference/formats.md describes every field.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/io/checksum.h"
#include "nlohmann/json.hpp"
#include "trainer/engine/params.h"

namespace deeper {

// Roles of tensors. Any other one names an arena of the optimizer's state (StateArenas::names).
inline constexpr char kWeightRole[] = "weight", kStatisticRole[] = "statistic";
// Moving averages of these, which --ema_decay keeps.
inline constexpr char kAverageRole[] = "weight_average", kStatisticAverageRole[] = "statistic_average";

// One tensor in the canonical layout: elements [first, end) of the flat state.
struct TensorEntry {
  std::string name;
  std::vector<int64_t> shape;
  std::string role = kWeightRole;
  int64_t first = 0, count = 0;

  friend bool operator==(const TensorEntry&, const TensorEntry&) = default;
  std::string ToString() const;  // "conv1.conv.weight [64, 3, 7, 7]"
  std::string NameAndRole() const { return name + " (" + role + ")"; }
  int64_t end() const { return first + count; }
  // What only training needs, the averages included.
  bool is_optimizer_state() const { return role != kWeightRole && role != kStatisticRole; }
};

// The same tensor in memory.
struct StateTensor {
  TensorEntry entry;
  const Param* param = nullptr;
  float* arena = nullptr;
};

// The tensors of `params` in the order of the files: weights, if wanted the optimizer's arenas, statistics,
// if wanted the averages.
enum class WithOptimizer { kNo, kYes };
std::vector<StateTensor> StateTensors(const ParamStore& params, WithOptimizer optimizer);

std::vector<TensorEntry> EntriesOf(const std::vector<StateTensor>& tensors);

// Differences in name or shape between the weights and statistics of a file and of a model: one sentence
// each, the first dozen. The optimizer's state is left out, since it differs exactly where the weights do.
std::vector<std::string> TensorDifferences(const std::vector<TensorEntry>& file,
                                           const std::vector<TensorEntry>& model);

// The position of training in its data: the next global batch to train on is `batch` of `epoch`.
struct DataState {
  std::string dataset_uuid;
  uint64_t seed = 0;
  int64_t global_batch = 0;
  std::string order;
  int64_t epoch = 0, batch = 0;
  int64_t samples_trained = 0;

  friend bool operator==(const DataState&, const DataState&) = default;
};

struct TrainState {
  int64_t step = 0;  // steps done
  DataState data;
  nlohmann::json config;            // an object; "model" and "num_classes" name the network
  std::optional<double> top1 = {};  // of these weights, if they were evaluated
};

struct CheckpointShard {
  uint64_t bytes = 0;
  Hash128 hash;  // of the whole file
};

struct CheckpointManifest : TrainState {
  std::vector<CheckpointShard> shards;  // ShardsOf(elements, ranks)
  std::vector<TensorEntry> tensors;     // back to back

  int64_t elements() const { return tensors.empty() ? 0 : tensors.back().end(); }
};

// Elements of the flat state that shard `shard` of `shard_count` holds.
struct StateRange {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};
// The number of shards that `ranks` ranks write: one each for few ranks; else files of at least 16 MiB, of
// which a parallel file system takes few more quickly than many.
int64_t ShardsOf(int64_t elements, int ranks);
// The rank that writes a shard. The writers are spread over the ranks, and so over the machines.
int WriterOf(int64_t shard, int64_t shard_count, int ranks);
StateRange ShardRange(int64_t elements, int64_t shard, int64_t shard_count);

std::string ShardName(int64_t shard, int64_t shard_count);  // "shard-00000-of-00004.h5"

// The file's text. It ends with a checksum of all that precedes it.
std::string RenderCheckpointManifest(const CheckpointManifest& manifest);

// DataLoss: not what RenderCheckpointManifest wrote; Unimplemented: a version that this build does not read.
absl::StatusOr<CheckpointManifest> ParseCheckpointManifest(const std::string& text, const std::string& path);

}  // namespace deeper
