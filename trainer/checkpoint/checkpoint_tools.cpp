#include "trainer/checkpoint/checkpoint_tools.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/checkpoint/checkpoint_shard.h"

namespace deeper {
namespace {

absl::StatusOr<Checkpoint> Find(const std::string& path) {
  ASSIGN_OR_RETURN(FoundCheckpoint found, FindAndReadCheckpoint(path));
  return std::move(found.checkpoint);
}

TensorDelta Compare(const std::string& name, const float* a, const float* b, int64_t count) {
  TensorDelta delta{.name = name};
  for (int64_t i = 0; i < count; ++i) {
    if (std::bit_cast<uint32_t>(a[i]) == std::bit_cast<uint32_t>(b[i])) continue;
    ++delta.elements;
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!(difference <= delta.max_abs) && !std::isnan(delta.max_abs)) delta.max_abs = difference;
  }
  return delta;
}

absl::Status WriteResharded(const Checkpoint& checkpoint, int64_t shards, const std::string& directory) {
  CheckpointManifest manifest = checkpoint.manifest;
  manifest.shards.clear();
  const std::string unfinished = UnfinishedStepDirectory(directory, manifest.step);
  for (int64_t shard = 0; shard < shards; ++shard) {
    const StateRange range = ShardRange(manifest.elements(), shard, shards);
    ASSIGN_OR_RETURN(const CheckpointShard written,
                     WriteCheckpointShard(unfinished + "/" + ShardName(shard, shards), manifest.step, range,
                                          [&](const auto& take) {
                                            take(checkpoint.state.data() + range.begin, range.size());
                                          }));
    manifest.shards.push_back(written);
  }
  return CommitCheckpoint(directory, manifest);
}

}  // namespace

absl::StatusOr<CheckpointDelta> CompareCheckpoints(const std::string& a, const std::string& b) {
  ASSIGN_OR_RETURN(const Checkpoint first, Find(a));
  ASSIGN_OR_RETURN(const Checkpoint second, Find(b));
  std::map<std::string, const TensorEntry*> others;
  for (const TensorEntry& tensor : second.manifest.tensors) others[tensor.NameAndRole()] = &tensor;

  CheckpointDelta delta;
  for (const TensorEntry& tensor : first.manifest.tensors) {
    const std::string name = tensor.NameAndRole();
    const auto other = others.find(name);
    if (other == others.end()) {
      delta.unlike.push_back(absl::StrCat(name, " is in the first only"));
      continue;
    }
    if (other->second->shape != tensor.shape) {
      delta.unlike.push_back(absl::StrCat(name, ": ", tensor.ToString(), " and ", other->second->ToString()));
    } else {
      ++delta.tensors;
      TensorDelta found = Compare(name, first.state.data() + tensor.first,
                                  second.state.data() + other->second->first, tensor.count);
      if (found.elements > 0) delta.different.push_back(std::move(found));
    }
    others.erase(other);
  }
  for (const auto& [name, tensor] : others)
    delta.unlike.push_back(absl::StrCat(name, " is in the second only"));
  return delta;
}

absl::Status ReshardCheckpoint(const std::string& from, int64_t shards, const std::string& directory) {
  ASSIGN_OR_RETURN(const Checkpoint checkpoint, Find(from));
  ASSIGN_OR_RETURN(const DirectoryLock lock, OpenCheckpointDirectory(directory));
  const int64_t step = checkpoint.manifest.step;
  absl::Status status = CreateUnfinished(directory, step);
  if (status.ok()) status = WriteResharded(checkpoint, shards, directory);
  if (!status.ok()) RemoveUnfinished(directory, step);
  return status;
}

}  // namespace deeper
