#include "trainer/checkpoint.h"

#include <future>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/buffer.h"
#include "trainer/agree.h"
#include "trainer/checkpoint_shard.h"
#include "trainer/state_table.h"

namespace deeper {
namespace {

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

struct Difference {
  std::string text;
  bool forcible;  // harmless enough for Match::kForced
};

std::vector<Difference> RunDifferences(const CheckpointManifest& saved, const TrainState& expected) {
  std::vector<Difference> differences;
  const auto compare = [&](const std::string& field, const nlohmann::json& before, const nlohmann::json& now,
                           bool forcible) {
    if (before == now) return;
    differences.push_back({absl::StrCat(field, " was ", before.dump(), " and is ", now.dump()), forcible});
  };
  const bool epoch_begins = saved.data.batch == 0;
  compare("dataset", saved.data.dataset_uuid, expected.data.dataset_uuid, false);
  compare("seed", saved.data.seed, expected.data.seed, epoch_begins);
  compare("global_batch", saved.data.global_batch, expected.data.global_batch, false);
  compare("order", saved.data.order, expected.data.order, epoch_begins);
  static const std::set<std::string> kHarmless = {"image_size", "mean", "std", "classes", "elastic"};
  for (const auto& [field, value] : expected.config.items()) {
    compare(field, saved.config.value(field, nlohmann::json()), value, kHarmless.contains(field));
  }
  return differences;
}

// Those differences that are forced.
absl::StatusOr<std::vector<std::string>> CheckRun(const std::string& path, const CheckpointManifest& saved,
                                                  const TrainState& expected, Match match) {
  std::vector<std::string> refused, forced;
  for (const auto& [text, forcible] : RunDifferences(saved, expected))
    (forcible && match == Match::kForced ? forced : refused).push_back(text);
  if (refused.empty()) return forced;
  return absl::FailedPreconditionError(
      absl::StrCat("checkpoint ", path, " is of another run: ", absl::StrJoin(refused, "; "),
                   "; use the same settings, or start afresh in another directory"));
}

absl::Status CheckTensors(const std::string& path, const CheckpointManifest& saved,
                          const std::vector<TensorEntry>& tensors) {
  if (saved.tensors == tensors) return absl::OkStatus();
  std::vector<std::string> differences = TensorDifferences(saved.tensors, tensors);
  if (differences.empty()) differences = {"its tensors come in another order"};
  return absl::FailedPreconditionError(
      absl::StrCat("checkpoint ", path, " is of another network: ", absl::StrJoin(differences, "; ")));
}

// The whole state, verified. Shard s is read by rank s mod size, and then given to the others.
absl::StatusOr<Buffer> ReadShards(const std::string& path, const CheckpointManifest& manifest,
                                  Communicator& comm) {
  const auto shard_count = static_cast<int64_t>(manifest.shards.size());
  const size_t bytes = static_cast<size_t>(manifest.elements()) * sizeof(float);
  Buffer state = AllocateHost(bytes);
  // New memory takes as long to come by as half of the reading: it comes while the disk is waited for.
  const auto populating =
      std::async(std::launch::async, [data = state.data(), bytes] { Populate(data, bytes); });
  const absl::Status status =
      state.data() == nullptr
          ? absl::ResourceExhaustedError(absl::StrCat("no ", bytes >> 20, " MiB of memory to read ", path))
          : ReadCheckpointShards(path, manifest, comm.rank(), comm.size(), state.as<float>());
  if (absl::Status agreed = Agree(comm, status); !agreed.ok()) return agreed;
  for (int64_t shard = 0; shard < shard_count; ++shard) {
    const StateRange range = ShardRange(manifest.elements(), shard, shard_count);
    comm.Broadcast(state.as<float>() + range.begin, static_cast<size_t>(range.size()) * sizeof(float),
                   static_cast<int>(shard % comm.size()), {})
        .Wait();
  }
  return state;
}

}  // namespace

absl::StatusOr<CheckpointChoice> ChooseCheckpoint(const std::string& directory, const std::string& resume,
                                                  Communicator& comm) {
  absl::StatusOr<CheckpointChoice> choice = CheckpointChoice{};
  if (comm.rank() == 0) choice = ChooseCheckpointIn(directory, resume);
  if (absl::Status agreed = Agree(comm, choice.status()); !agreed.ok()) return agreed;
  BroadcastString(choice->path, comm);
  return choice;
}

absl::StatusOr<LoadedState> LoadCheckpoint(const std::string& path, const TrainState& expected, Match match,
                                           ParamStore& params, Communicator& comm) {
  const absl::StatusOr<CheckpointManifest> manifest = ReadManifestTogether(path, comm);
  if (!manifest.ok()) return manifest.status();
  const std::vector<StateTensor> tensors = StateTensors(params, WithMomentum::kYes);
  absl::StatusOr<std::vector<std::string>> forced = CheckRun(path, *manifest, expected, match);
  absl::Status fits = forced.status();
  if (fits.ok()) fits = CheckTensors(path, *manifest, EntriesOf(tensors));
  if (fits = Agree(comm, fits); !fits.ok()) return fits;
  const absl::StatusOr<Buffer> state = ReadShards(path, *manifest, comm);
  if (!state.ok()) return state.status();
  for (const auto& [entry, param, arena] : tensors)
    params.Write(*param, state->as<float>() + entry.first, arena);
  params.KeepMomentum();
  LoadedState loaded{{manifest->step, manifest->data, manifest->config, manifest->top1}, *std::move(forced)};
  loaded.data.seed = expected.data.seed;
  loaded.data.order = expected.data.order;
  return loaded;
}

}  // namespace deeper
