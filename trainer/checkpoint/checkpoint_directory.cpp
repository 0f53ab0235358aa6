#include "trainer/checkpoint/checkpoint_directory.h"

#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "data/io/atomic_file.h"
#include "kernels/base/status.h"
#include "trainer/checkpoint/checkpoint_shard.h"

namespace deeper {
namespace {

namespace fs = std::filesystem;

constexpr char kUnfinished[] = ".tmp-", kStep[] = "step-", kDamaged[] = ".damaged";
constexpr int kMaxLists = 100;  // of a directory whose steps vanish before they are read

std::string StepName(int64_t step) {
  return absl::StrFormat("%s%09d", kStep, step);
}

// The step whose directory is called `name` or, for an unfinished one, `prefix` + name. Digits only: a
// directory of any other name is not ours.
std::optional<int64_t> StepOf(absl::string_view name, absl::string_view prefix = "") {
  int64_t step = 0;
  const bool ours = absl::ConsumePrefix(&name, prefix) && absl::ConsumePrefix(&name, kStep) &&
                    name.find_first_not_of("0123456789") == absl::string_view::npos &&
                    absl::SimpleAtoi(name, &step);
  return ours ? std::optional(step) : std::nullopt;
}

bool Exists(const std::string& path) {
  std::error_code unknown;  // a path that cannot be examined counts as absent; using it reports why
  return fs::exists(path, unknown);
}

absl::Status RemoveAll(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  return error ? IoError("remove", path, error.value()) : absl::OkStatus();
}

// Names of the entries of a directory.
absl::StatusOr<std::vector<std::string>> List(const std::string& directory) {
  std::error_code error;
  std::vector<std::string> names;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    names.push_back(entry->path().filename());
  }
  if (error) return IoError("list", directory, error.value());
  return names;
}

using Steps = std::map<int64_t, std::string, std::greater<>>;  // step -> directory, newest first

// None if the directory does not exist.
absl::StatusOr<Steps> StepsIn(const std::string& directory) {
  Steps steps;
  std::error_code error;
  const fs::file_type type = fs::status(directory, error).type();
  if (type == fs::file_type::not_found) return steps;
  if (error) return IoError("examine", directory, error.value());
  ASSIGN_OR_RETURN(const std::vector<std::string> names, List(directory));
  for (const std::string& name : names) {
    if (const std::optional<int64_t> step = StepOf(name)) steps[*step] = absl::StrCat(directory, "/", name);
  }
  return steps;
}

CheckpointInfo Inspect(const std::string& path) {
  CheckpointInfo info{.path = path};
  const absl::StatusOr<CheckpointManifest> manifest = ReadCheckpointManifest(path);
  if (!manifest.ok()) {
    info.problems.emplace_back(manifest.status().message());
    return info;
  }
  info.step = manifest->step;
  info.shards = manifest->shards.size();
  info.top1 = manifest->top1;
  for (size_t shard = 0; shard < info.shards; ++shard) {
    info.bytes += manifest->shards[shard].bytes;
    const absl::Status status = ReadCheckpointShards(path, *manifest, static_cast<int64_t>(shard),
                                                     static_cast<int64_t>(info.shards), nullptr);
    if (!status.ok()) info.problems.emplace_back(status.message());
  }
  return info;
}

absl::Status CheckUsable(const std::string& path, const CheckpointVerifier& verify = VerifyAlone) {
  absl::Status status = verify(path);
  if (status.ok()) return status;
  if (absl::IsUnavailable(status)) return Unavailable("checkpoint ", path, ": ", status.message());
  return DataLoss("checkpoint ", path, " cannot be used: ", status.message());
}

// A training that saves to the same directory may remove the steps of a list (--keep): then a new one is
// made.
absl::StatusOr<CheckpointChoice> ChooseLatest(const std::string& directory,
                                              const CheckpointVerifier& verify) {
  CheckpointChoice choice;
  for (int list = 0; list < kMaxLists; ++list) {
    ASSIGN_OR_RETURN(const Steps steps, StepsIn(directory));
    if (steps.empty()) return CheckpointChoice{};
    choice.warnings.clear();
    bool vanished = false;
    for (const auto& [step, path] : steps) {
      const absl::Status usable = CheckUsable(path, verify);
      if (absl::IsUnavailable(usable)) return usable;
      if (usable.ok()) return CheckpointChoice{path, std::move(choice.warnings)};
      if (!Exists(path))
        vanished = true;
      else
        choice.warnings.emplace_back(usable.message());
    }
    if (!vanished) break;
  }
  return DataLoss("no usable checkpoint in ", directory, ": ", absl::StrJoin(choice.warnings, "; "),
                  "; move them away, or start from scratch in another directory");
}

absl::StatusOr<CheckpointChoice> ChooseStep(const std::string& directory, int64_t step,
                                            const CheckpointVerifier& verify) {
  ASSIGN_OR_RETURN(const Steps steps, StepsIn(directory));
  const auto found = steps.find(step);
  if (found == steps.end()) {
    const auto number = [](std::string* out, const auto& entry) { absl::StrAppend(out, entry.first); };
    return NotFound("there is no checkpoint of step ", step, " in ", directory, "; it holds ",
                    steps.empty() ? "none" : "steps ", absl::StrJoin(steps, ", ", number));
  }
  if (found != steps.begin()) {
    return FailedPrecondition(directory, " also holds later steps, up to ", steps.begin()->first,
                              ", and steps are never overwritten: to branch off, copy ", found->second,
                              " into another directory; to go back, move the later ones away");
  }
  RETURN_IF_ERROR(CheckUsable(found->second, verify));
  return CheckpointChoice{found->second, {}};
}

absl::StatusOr<CheckpointChoice> ChooseNone(const std::string& directory) {
  ASSIGN_OR_RETURN(const Steps steps, StepsIn(directory));
  if (steps.empty()) return CheckpointChoice{};
  return FailedPrecondition(
      directory, " already holds checkpoints up to step ", steps.begin()->first,
      ", and steps are never overwritten: to start from scratch, use another directory");
}

// Steps to remove, up to `newest`, which is sound. Those without a valid manifest do not count and stay for
// the user. Nor does a damaged one count, so that a sound one stays in its place.
std::vector<int64_t> ChooseLeaving(const Steps& steps, int64_t newest, const Retention& retention,
                                   const CheckpointVerifier& verify) {
  std::vector<int64_t> candidates;
  int kept = 0;
  int64_t best = 0;
  std::optional<double> best_top1;
  for (auto entry = steps.lower_bound(newest); entry != steps.end(); ++entry) {
    const auto& [step, path] = *entry;
    const absl::StatusOr<CheckpointManifest> manifest = ReadCheckpointManifest(path);
    if (!manifest.ok()) continue;
    const bool counts = kept < retention.keep || manifest->top1 > best_top1;
    if (counts && step != newest && !CheckUsable(path, verify).ok()) continue;
    if (manifest->top1 > best_top1) {
      best = step;
      best_top1 = manifest->top1;
    }
    const bool milestone = retention.keep_every > 0 && step % retention.keep_every == 0;
    if (++kept > retention.keep && !milestone) candidates.push_back(step);
  }
  if (best_top1.has_value()) std::erase(candidates, best);
  return candidates;
}

}  // namespace

std::string StepDirectory(const std::string& directory, int64_t step) {
  return directory + "/" + StepName(step);
}

std::string UnfinishedStepDirectory(const std::string& directory, int64_t step) {
  return absl::StrCat(directory, "/", kUnfinished, StepName(step));
}

absl::StatusOr<DirectoryLock> OpenCheckpointDirectory(const std::string& directory) {
  RETURN_IF_ERROR(CreateDirectories(directory));
  if (access(directory.c_str(), W_OK | X_OK) != 0) return IoError("write to", directory, errno);
  return DirectoryLock::Take(directory);
}

absl::Status RemoveInterruptedSaves(const std::string& directory) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, List(directory));
  for (const std::string& name : names) {
    if (StepOf(name, kUnfinished)) RETURN_IF_ERROR(RemoveAll(absl::StrCat(directory, "/", name)));
  }
  return absl::OkStatus();
}

std::string CheckpointManifestPath(const std::string& step_directory) {
  return step_directory + "/manifest.json";
}

absl::StatusOr<std::string> ReadCheckpointManifestText(const std::string& step_directory) {
  ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes, ReadFile(CheckpointManifestPath(step_directory)));
  return std::string(bytes.begin(), bytes.end());
}

absl::StatusOr<CheckpointManifest> ReadCheckpointManifest(const std::string& step_directory) {
  ASSIGN_OR_RETURN(const std::string text, ReadCheckpointManifestText(step_directory));
  return ParseCheckpointManifest(text, CheckpointManifestPath(step_directory));
}

absl::StatusOr<Checkpoint> ReadCheckpoint(const std::string& step_directory) {
  ASSIGN_OR_RETURN(CheckpointManifest manifest, ReadCheckpointManifest(step_directory));
  std::vector<float> state(static_cast<size_t>(manifest.elements()));
  RETURN_IF_ERROR(ReadCheckpointShards(step_directory, manifest, 0, 1, state.data()));
  return Checkpoint{std::move(manifest), std::move(state)};
}

absl::Status VerifyShards(const std::string& step_directory, const CheckpointManifest& manifest,
                          int64_t first, int64_t stride) {
  absl::Status verified;
  const auto shards = static_cast<int64_t>(manifest.shards.size());
  for (int64_t shard = first; shard < shards; shard += stride) {
    const absl::Status status = ReadCheckpointShards(step_directory, manifest, shard, shards, nullptr);
    if (!status.ok()) {
      verified = absl::Status(status.code(),
                              absl::StrCat(verified.message(), verified.ok() ? "" : "; ", status.message()));
    }
  }
  return verified;
}

absl::Status VerifyAlone(const std::string& step_directory) {
  ASSIGN_OR_RETURN(const CheckpointManifest manifest, ReadCheckpointManifest(step_directory));
  return VerifyShards(step_directory, manifest, 0, 1);
}

absl::StatusOr<std::vector<CheckpointInfo>> ListCheckpoints(const std::string& path) {
  if (Exists(CheckpointManifestPath(path))) return std::vector<CheckpointInfo>{Inspect(path)};
  ASSIGN_OR_RETURN(const Steps steps, StepsIn(path));
  if (steps.empty()) return NotFound(path, " is not a checkpoint and holds none");
  std::vector<CheckpointInfo> checkpoints;
  for (auto entry = steps.rbegin(); entry != steps.rend(); ++entry) {
    CheckpointInfo info = Inspect(entry->second);
    if (!Exists(entry->second)) continue;  // a training has removed it meanwhile
    info.step = entry->first;
    checkpoints.push_back(std::move(info));
  }
  return checkpoints;
}

absl::StatusOr<CheckpointChoice> ChooseCheckpointIn(const std::string& directory, const std::string& resume,
                                                    const CheckpointVerifier& verify) {
  int64_t step = 0;
  if (resume == "never") return ChooseNone(directory);
  if (resume == "latest") return ChooseLatest(directory, verify);
  if (absl::SimpleAtoi(resume, &step)) return ChooseStep(directory, step, verify);
  return InvalidArgument("cannot resume from '", resume, "': pass latest, never or a step");
}

absl::StatusOr<CheckpointChoice> FindCheckpoint(const std::string& path) {
  if (Exists(CheckpointManifestPath(path))) {
    RETURN_IF_ERROR(CheckUsable(path));
    return CheckpointChoice{path, {}};
  }
  ASSIGN_OR_RETURN(CheckpointChoice choice, ChooseLatest(path, VerifyAlone));
  if (choice.path.empty()) return NotFound(path, " is not a checkpoint and holds none");
  return choice;
}

absl::StatusOr<FoundCheckpoint> FindAndReadCheckpoint(const std::string& path) {
  for (int list = 1;; ++list) {
    ASSIGN_OR_RETURN(CheckpointChoice choice, FindCheckpoint(path));
    absl::StatusOr<Checkpoint> read = ReadCheckpoint(choice.path);
    if (read.ok()) return FoundCheckpoint{choice.path, *std::move(read), std::move(choice.warnings)};
    if (Exists(choice.path) || list == kMaxLists) return read.status();
  }
}

absl::Status CommitCheckpoint(const std::string& directory, const CheckpointManifest& manifest,
                              const CheckpointVerifier& verify) {
  const std::string unfinished = UnfinishedStepDirectory(directory, manifest.step);
  const std::string finished = StepDirectory(directory, manifest.step);
  const std::string text = RenderCheckpointManifest(manifest);
  if (Exists(finished)) {
    const absl::StatusOr<std::string> there = ReadCheckpointManifestText(finished);
    absl::Status usable = CheckUsable(finished, verify);
    // The file server does not answer: it may be sound.
    if (absl::IsUnavailable(there.status())) return there.status();
    if (absl::IsUnavailable(usable)) return usable;
    if (there.ok() && *there == text && usable.ok()) return RemoveAll(unfinished);
    // A run that resumed from an earlier one arrives here again.
    const std::string aside = finished + kDamaged;
    if (usable.ok() || Exists(aside)) {
      return absl::AlreadyExistsError(
          absl::StrCat(finished,
                       " already exists, with another state or damaged, and checkpoints are never "
                       "overwritten; move it away or use another directory"));
    }
    RETURN_IF_ERROR(RenameDurably(finished, aside));
  }
  RETURN_IF_ERROR(WriteFileAtomically(CheckpointManifestPath(unfinished), text));
  return RenameDurably(unfinished, finished);
}

absl::Status RemoveOldCheckpoints(const std::string& directory, int64_t step, const Retention& retention,
                                  const CheckpointVerifier& verify,
                                  const std::function<absl::Status()>& check_owner) {
  ASSIGN_OR_RETURN(const Steps steps, StepsIn(directory));
  if (retention.keep <= 0) return absl::OkStatus();
  if (std::distance(steps.lower_bound(step), steps.end()) <= retention.keep) return absl::OkStatus();
  RETURN_IF_ERROR(CheckUsable(StepDirectory(directory, step), verify));
  for (const int64_t old : ChooseLeaving(steps, step, retention, verify)) {
    RETURN_IF_ERROR(check_owner());
    // Renamed first, so that a half-removed directory never looks like a checkpoint.
    const std::string unlisted = UnfinishedStepDirectory(directory, old);
    RETURN_IF_ERROR(RenameDurably(steps.at(old), unlisted));
    RETURN_IF_ERROR(RemoveAll(unlisted));
  }
  return absl::OkStatus();
}

absl::Status CreateUnfinished(const std::string& directory, int64_t step) {
  RemoveUnfinished(directory, step);
  return CreateDirectories(UnfinishedStepDirectory(directory, step));
}

void RemoveUnfinished(const std::string& directory, int64_t step) {
  RemoveAll(UnfinishedStepDirectory(directory, step)).IgnoreError();
}

}  // namespace deeper
