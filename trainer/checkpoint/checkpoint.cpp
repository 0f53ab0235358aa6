#include "trainer/checkpoint/checkpoint.h"

#include <algorithm>
#include <atomic>
#include <future>
#include <memory>
#include <set>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/agree.h"
#include "kernels/base/buffer.h"
#include "kernels/base/status.h"
#include "trainer/checkpoint/checkpoint_shard.h"

namespace deeper {
namespace {

// All ranks use what rank 0 reads.
absl::StatusOr<CheckpointManifest> ReadManifestTogether(const std::string& path, Communicator& comm) {
  absl::StatusOr<std::string> text = std::string();
  if (comm.rank() == 0) text = ReadCheckpointManifestText(path);
  RETURN_IF_ERROR(Agree(comm, text.status()));
  Broadcast(comm, 0, &*text);
  return ParseCheckpointManifest(*text, CheckpointManifestPath(path));
}

std::string TextOf(const nlohmann::json& value) {
  return value.is_null() ? "none" : value.dump();
}

// Returns the forced differences. `fits`: the tensors are those of the run.
absl::StatusOr<std::vector<std::string>> CheckRun(const std::string& path, const CheckpointManifest& saved,
                                                  const TrainState& expected, Match match, bool fits) {
  std::vector<std::string> refused, forced;
  bool force_helps = fits;
  const auto compare = [&](const std::string& field, const nlohmann::json& before, const nlohmann::json& now,
                           bool forcible) {
    if (before == now) return;
    force_helps = force_helps && forcible;
    (forcible && match == Match::kForced ? forced : refused)
        .push_back(absl::StrCat(field, " was ", TextOf(before), " and is ", TextOf(now)));
  };
  const bool epoch_begins = saved.data.batch == 0;
  compare("dataset", saved.data.dataset_uuid, expected.data.dataset_uuid, false);
  compare("seed", saved.data.seed, expected.data.seed, epoch_begins);
  compare("global_batch", saved.data.global_batch, expected.data.global_batch, false);
  compare("order", saved.data.order, expected.data.order, epoch_begins);
  static const std::set<std::string> kHarmless = {"image_size", "mean",    "std",
                                                  "classes",    "elastic", "val_preset"};
  for (const auto& [field, value] : expected.config.items()) {
    if (field == "image_size" && fits && match == Match::kResized) continue;
    const nlohmann::json missing =
        field == "blur_pool" ? nlohmann::json(false) : nlohmann::json();  // in 0.1.0
    compare(field, saved.config.value(field, missing), value, kHarmless.contains(field));
  }
  for (const char* const field : {"elastic", "val_preset"}) {  // in the config only if they are set
    if (saved.config.contains(field) && !expected.config.contains(field))
      compare(field, saved.config[field], {}, kHarmless.contains(field));
  }
  if (refused.empty()) return forced;
  if (refused.size() == 1 && refused[0].starts_with("image_size")) {
    refused[0] += fits ? "; to continue at one of these sizes, give --image_size"
                       : ", and parameters depend on it (those of GoogLeNets do not with --aux=false)";
  }
  return FailedPrecondition("checkpoint ", path, " belongs to another run: ", absl::StrJoin(refused, "; "),
                            "; use the same settings, ",
                            force_helps ? "pass --force_resume to continue with the new ones, " : "",
                            "or start from scratch in another directory");
}

// "adam_m and adam_v"
std::string OptimizerStateOf(const std::vector<TensorEntry>& tensors) {
  std::set<std::string> roles;
  for (const TensorEntry& tensor : tensors)
    if (tensor.is_optimizer_state()) roles.insert(tensor.role);
  return roles.empty() ? "nothing" : absl::StrJoin(roles, " and ");
}

absl::Status CheckTensors(const std::string& path, const CheckpointManifest& saved,
                          const std::vector<TensorEntry>& tensors) {
  if (saved.tensors == tensors) return absl::OkStatus();
  std::vector<std::string> differences = TensorDifferences(saved.tensors, tensors);
  const std::string before = OptimizerStateOf(saved.tensors), now = OptimizerStateOf(tensors);
  if (differences.empty() && before != now) {
    return FailedPrecondition("checkpoint ", path, " was saved with another optimizer: it contains ", before,
                              ", and this run needs ", now,
                              "; resume with its --optimizer and --ema_decay, or load only its weights with "
                              "--init_from and another directory");
  }
  if (differences.empty()) differences = {"its tensors are in another order"};
  return FailedPrecondition("checkpoint ", path,
                            " belongs to another network: ", absl::StrJoin(differences, "; "));
}

// The position that one thread has read to; another thread waits for it.
class ReadMark {
 public:
  void MoveTo(int64_t element) {
    element_.store(element);
    element_.notify_all();
  }
  void WaitFor(int64_t element) const {
    for (int64_t now = element_.load(); now < element; now = element_.load()) element_.wait(now);
  }

 private:
  std::atomic<int64_t> element_ = 0;
};

// Writes each tensor to its place, in its layout, as soon as all of it is read.
class TensorPlacer {
 public:
  TensorPlacer(ParamStore& params, const float* state)
      : params_(params), state_(state), tensors_(StateTensors(params, WithOptimizer::kYes)) {
    for (const StateTensor& tensor : tensors_) missing_.push_back(tensor.entry.count);
  }

  // Call it once for each range of the state, in any order.
  void Add(StateRange range) {
    auto tensor = std::partition_point(tensors_.begin(), tensors_.end(),
                                       [&](const StateTensor& t) { return t.entry.end() <= range.begin; });
    for (; tensor != tensors_.end() && tensor->entry.first < range.end; ++tensor) {
      const auto& [entry, param, arena] = *tensor;
      int64_t& missing = missing_[static_cast<size_t>(tensor - tensors_.begin())];
      missing -= std::min(entry.end(), range.end) - std::max(entry.first, range.begin);
      if (missing == 0) params_.Write(*param, state_ + entry.first, arena);
    }
  }

 private:
  ParamStore& params_;
  const float* state_;
  const std::vector<StateTensor> tensors_;
  std::vector<int64_t> missing_;  // elements of each
};

// A part of the state that rank `root` reads, as the `turn`-th of all that it reads.
struct Piece {
  StateRange range;
  int root;
  int64_t turn;
};

// In turn: the first piece of each rank, then the second, and so on. Rank s mod `ranks` reads shard s.
std::vector<Piece> PiecesInTurn(const CheckpointManifest& manifest, int ranks) {
  constexpr int64_t kPiece = int64_t{1} << 20;  // elements
  const auto shard_count = static_cast<int64_t>(manifest.shards.size());
  std::vector<Piece> pieces;
  std::vector<int64_t> turns(static_cast<size_t>(ranks));
  for (int64_t shard = 0; shard < shard_count; ++shard) {
    const StateRange range = ShardRange(manifest.elements(), shard, shard_count);
    const auto root = static_cast<int>(shard % ranks);
    for (int64_t at = range.begin; at < range.end; at += kPiece)
      pieces.push_back({{at, std::min(at + kPiece, range.end)}, root, turns[static_cast<size_t>(root)]++});
  }
  std::ranges::stable_sort(pieces, {}, &Piece::turn);
  return pieces;
}

// Fills `params`, which are valid only if this returns OK on every rank. While a thread reads from the disk,
// this one broadcasts what was read and converts its layout.
absl::Status ReadInto(ParamStore& params, const std::string& path, const CheckpointManifest& manifest,
                      Communicator& comm) {
  const size_t bytes = static_cast<size_t>(manifest.elements()) * sizeof(float);
  const Buffer state = AllocateHost(bytes);
  absl::Status read;
  if (state.data() == nullptr && bytes > 0)
    read = ResourceExhausted("cannot allocate ", bytes >> 20, " MiB to read ", path);
  RETURN_IF_ERROR(Agree(comm, read));
  const auto populating =
      std::async(std::launch::async, [data = state.data(), bytes] { Populate(data, bytes); });
  ReadMark mark;
  std::future<absl::Status> reading = std::async(std::launch::async, [&] {
    // Also after an error or an exception, such as a thread that cannot start: nothing waits for ever.
    const absl::Cleanup done = [&] { mark.MoveTo(manifest.elements()); };
    return ReadCheckpointShards(path, manifest, comm.rank(), comm.size(), state.as<float>(),
                                [&](int64_t element) { mark.MoveTo(element); });
  });
  TensorPlacer placer(params, state.as<float>());
  for (const auto& [range, root, turn] : PiecesInTurn(manifest, comm.size())) {
    if (root == comm.rank()) mark.WaitFor(range.end);
    comm.Broadcast(state.as<float>() + range.begin, static_cast<size_t>(range.size()) * sizeof(float), root,
                   {})
        .Wait();
    placer.Add(range);
  }
  return Agree(comm, reading.get());
}

// Each rank verifies the shards that its neighbour wrote, or another rank if their number has changed: they
// come from the file server rather than from the cache of this machine.
absl::Status VerifyParts(const std::string& path, Communicator& comm, const std::function<void()>& meet) {
  ASSIGN_OR_RETURN(const CheckpointManifest manifest, ReadManifestTogether(path, comm));
  const absl::Status mine = VerifyShards(path, manifest, (comm.rank() + 1) % comm.size(), comm.size());
  if (meet) meet();
  return Agree(comm, mine);
}

}  // namespace

void VerifyTogether(Communicator& comm, const std::function<void(const CheckpointVerifier& verify)>& work,
                    const std::function<void()>& meet) {
  const auto ask = [&](std::string path) {  // an empty path: there are no more
    if (meet) meet();
    Broadcast(comm, 0, &path);
    return path;
  };
  if (comm.rank() == 0) {
    work([&](const std::string& path) { return VerifyParts(ask(path), comm, meet); });
    ask("");
    return;
  }
  for (std::string path = ask(""); !path.empty(); path = ask(""))
    VerifyParts(path, comm, meet).IgnoreError();  // rank 0 reports it
}

absl::StatusOr<CheckpointChoice> ChooseCheckpoint(const std::string& directory, const std::string& resume,
                                                  Communicator& comm) {
  absl::StatusOr<CheckpointChoice> choice = CheckpointChoice{};
  VerifyTogether(comm, [&](const CheckpointVerifier& verify) {
    choice = ChooseCheckpointIn(directory, resume, verify);
  });
  RETURN_IF_ERROR(Agree(comm, choice.status()));
  Broadcast(comm, 0, &choice->path);
  return choice;
}

absl::StatusOr<LoadedState> LoadCheckpoint(const std::string& path, const TrainState& expected, Match match,
                                           ParamStore& params, Communicator& comm) {
  ASSIGN_OR_RETURN(const CheckpointManifest manifest, ReadManifestTogether(path, comm));
  const absl::Status fits =
      CheckTensors(path, manifest, EntriesOf(StateTensors(params, WithOptimizer::kYes)));
  absl::StatusOr<std::vector<std::string>> forced = CheckRun(path, manifest, expected, match, fits.ok());
  absl::Status status = forced.status();
  if (status.ok()) status = fits;
  RETURN_IF_ERROR(Agree(comm, status));
  ASSIGN_OR_RETURN(const std::unique_ptr<ParamStore> loading, Agree(comm, params.MakeEmpty()));
  RETURN_IF_ERROR(ReadInto(*loading, path, manifest, comm));
  params.Swap(*loading);
  LoadedState loaded{manifest, *std::move(forced)};
  loaded.data.seed = expected.data.seed;
  loaded.data.order = expected.data.order;
  return loaded;
}

}  // namespace deeper
