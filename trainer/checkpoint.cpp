#include "trainer/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/atomic_file.h"
#include "data/file.h"
#include "trainer/agree.h"
#include "trainer/checkpoint_shard.h"
#include "trainer/state_table.h"

namespace deeper {
namespace {

// Elements `range` of the flat state, copied to the host.
std::vector<float> Snapshot(const ParamStore& params, const std::vector<StateTensor>& tensors,
                            StateRange range) {
  std::vector<float> values(static_cast<size_t>(range.size())), whole;
  for (const auto& [entry, param, arena] : tensors) {
    const int64_t begin = std::max(range.begin, entry.first);
    const int64_t end = std::min(range.end, entry.first + entry.count);
    if (begin >= end) continue;
    whole.resize(static_cast<size_t>(entry.count));
    params.Read(*param, arena, whole.data());
    std::copy(whole.begin() + (begin - entry.first), whole.begin() + (end - entry.first),
              values.begin() + (begin - range.begin));
  }
  return values;
}

// Momentum as the files have it, on every rank: all of it.
void GatherMomentum(const ParamStore& params, Communicator& comm) {
  if (!params.momentum_is_sharded()) return;
  comm.AllGather(params.momentum(), params.whole_momentum(),
                 static_cast<size_t>(params.momentum_elements()) * sizeof(float), {})
      .Wait();
}

absl::Status CreateUnfinished(const std::string& unfinished) {
  std::error_code ignored;  // creating it again will tell
  std::filesystem::remove_all(unfinished, ignored);
  return CreateDirectories(unfinished);
}

// Every rank writes its part of the state. The entries of all ranks, on every rank.
absl::StatusOr<std::vector<CheckpointShard>> WriteShards(const std::string& directory, int64_t step,
                                                         const ParamStore& params, Communicator& comm) {
  const std::vector<StateTensor> tensors = StateTensors(params, WithMomentum::kYes);
  const int64_t elements = tensors.back().entry.first + tensors.back().entry.count;
  const StateRange range = ShardRange(elements, comm.rank(), comm.size());
  const absl::StatusOr<CheckpointShard> mine =
      WriteCheckpointShard(directory + "/" + ShardName(comm.rank(), comm.size()), step, range,
                           Snapshot(params, tensors, range).data());
  if (absl::Status agreed = Agree(comm, mine.status()); !agreed.ok()) return agreed;
  static_assert(std::is_trivially_copyable_v<CheckpointShard>);
  std::vector<CheckpointShard> all(static_cast<size_t>(comm.size()));
  comm.AllGather(&*mine, all.data(), sizeof(CheckpointShard), {}).Wait();
  return all;
}

absl::Status WriteAndCommit(const std::string& directory, const TrainState& state, const ParamStore& params,
                            Communicator& comm) {
  absl::StatusOr<std::vector<CheckpointShard>> shards =
      WriteShards(UnfinishedStepDirectory(directory, state.step), state.step, params, comm);
  if (!shards.ok()) return shards.status();
  absl::Status status;
  if (comm.rank() == 0) {
    status = CommitCheckpoint(directory, {state.step, state.data, state.config, *std::move(shards),
                                          EntriesOf(StateTensors(params, WithMomentum::kYes))});
  }
  return Agree(comm, status);
}

void BroadcastString(std::string& text, Communicator& comm) {
  auto size = static_cast<int64_t>(text.size());
  comm.Broadcast(&size, sizeof(size), 0, {}).Wait();
  text.resize(static_cast<size_t>(size));
  comm.Broadcast(text.data(), text.size(), 0, {}).Wait();
}

// What rank 0 reads is what every rank goes by.
absl::StatusOr<CheckpointManifest> ReadManifestTogether(const std::string& path, Communicator& comm) {
  absl::StatusOr<std::string> text = std::string();
  if (comm.rank() == 0) text = ReadCheckpointManifestText(path);
  if (absl::Status agreed = Agree(comm, text.status()); !agreed.ok()) return agreed;
  BroadcastString(*text, comm);
  return ParseCheckpointManifest(*text, CheckpointManifestPath(path));
}

std::vector<std::string> RunDifferences(const CheckpointManifest& saved, const TrainState& expected) {
  std::vector<std::string> differences;
  const auto compare = [&](const std::string& field, const nlohmann::json& before,
                           const nlohmann::json& now) {
    if (before == now) return;
    differences.push_back(absl::StrCat(field, " was ", before.dump(), " and is ", now.dump()));
  };
  compare("dataset", saved.data.dataset_uuid, expected.data.dataset_uuid);
  compare("seed", saved.data.seed, expected.data.seed);
  compare("global_batch", saved.data.global_batch, expected.data.global_batch);
  compare("order", saved.data.order, expected.data.order);
  for (const auto& [field, value] : expected.config.items()) {
    compare(field, saved.config.value(field, nlohmann::json()), value);
  }
  return differences;
}

absl::Status CheckMatch(const std::string& path, const CheckpointManifest& saved, const TrainState& expected,
                        const std::vector<TensorEntry>& tensors) {
  if (const std::vector<std::string> differences = RunDifferences(saved, expected); !differences.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("checkpoint ", path, " is of another run: ", absl::StrJoin(differences, "; "),
                     "; use the same settings, or start afresh in another directory"));
  }
  if (saved.tensors == tensors) return absl::OkStatus();
  std::vector<std::string> differences = TensorDifferences(saved.tensors, tensors);
  if (differences.empty()) differences = {"its tensors come in another order"};
  return absl::FailedPreconditionError(
      absl::StrCat("checkpoint ", path, " is of another network: ", absl::StrJoin(differences, "; ")));
}

// The whole state, verified. Shard s is read by rank s mod size, and then given to the others.
absl::StatusOr<std::vector<float>> ReadShards(const std::string& path, const CheckpointManifest& manifest,
                                              Communicator& comm) {
  const auto shard_count = static_cast<int64_t>(manifest.shards.size());
  std::vector<float> state(static_cast<size_t>(manifest.elements()));
  const absl::Status status = ReadCheckpointShards(path, manifest, comm.rank(), comm.size(), state.data());
  if (absl::Status agreed = Agree(comm, status); !agreed.ok()) return agreed;
  for (int64_t shard = 0; shard < shard_count; ++shard) {
    const StateRange range = ShardRange(manifest.elements(), shard, shard_count);
    comm.Broadcast(state.data() + range.begin, static_cast<size_t>(range.size()) * sizeof(float),
                   static_cast<int>(shard % comm.size()), {})
        .Wait();
  }
  return state;
}

}  // namespace

absl::Status SaveCheckpoint(const std::string& directory, const TrainState& state, const ParamStore& params,
                            Communicator& comm, int keep) {
  GatherMomentum(params, comm);
  const std::string unfinished = UnfinishedStepDirectory(directory, state.step);
  const bool chief = comm.rank() == 0;
  absl::Status status = Agree(comm, chief ? CreateUnfinished(unfinished) : absl::OkStatus());
  if (status.ok()) status = WriteAndCommit(directory, state, params, comm);
  if (status.ok()) {
    return Agree(comm, chief ? RemoveOldCheckpoints(directory, state.step, keep) : absl::OkStatus());
  }
  std::error_code ignored;  // what was wrong is reported already
  if (chief) std::filesystem::remove_all(unfinished, ignored);
  return status;
}

absl::StatusOr<CheckpointChoice> ChooseCheckpoint(const std::string& directory, const std::string& resume,
                                                  Communicator& comm) {
  absl::StatusOr<CheckpointChoice> choice = CheckpointChoice{};
  if (comm.rank() == 0) choice = ChooseCheckpointIn(directory, resume);
  if (absl::Status agreed = Agree(comm, choice.status()); !agreed.ok()) return agreed;
  BroadcastString(choice->path, comm);
  return choice;
}

absl::StatusOr<TrainState> LoadCheckpoint(const std::string& path, const TrainState& expected,
                                          ParamStore& params, Communicator& comm) {
  const absl::StatusOr<CheckpointManifest> manifest = ReadManifestTogether(path, comm);
  if (!manifest.ok()) return manifest.status();
  const std::vector<StateTensor> tensors = StateTensors(params, WithMomentum::kYes);
  absl::Status match = CheckMatch(path, *manifest, expected, EntriesOf(tensors));
  if (match = Agree(comm, match); !match.ok()) return match;
  const absl::StatusOr<std::vector<float>> state = ReadShards(path, *manifest, comm);
  if (!state.ok()) return state.status();
  for (const auto& [entry, param, arena] : tensors) params.Write(*param, state->data() + entry.first, arena);
  params.KeepMomentum();
  return TrainState{manifest->step, manifest->data, manifest->config};
}

}  // namespace deeper
