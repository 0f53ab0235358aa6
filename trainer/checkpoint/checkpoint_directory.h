// DIR/step-000120000/{manifest.json, shard-*.h5}. One process at a time manages DIR; in a job, rank 0.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/io/directory_lock.h"
#include "trainer/checkpoint/checkpoint_manifest.h"

namespace deeper {

std::string StepDirectory(const std::string& directory, int64_t step);
// The directory of the checkpoint of `step` until it is complete.
std::string UnfinishedStepDirectory(const std::string& directory, int64_t step);

// Creates the directory and checks that it is writable. The caller owns it as long as the lock exists.
// FailedPrecondition: another job owns it.
absl::StatusOr<DirectoryLock> OpenCheckpointDirectory(const std::string& directory);
// Removes what interrupted saves left, .tmp-step-DIGITS, and nothing else. For the holder of the lock, when
// nothing can stop its run from starting any more.
absl::Status RemoveInterruptedSaves(const std::string& directory);

std::string CheckpointManifestPath(const std::string& step_directory);
absl::StatusOr<std::string> ReadCheckpointManifestText(const std::string& step_directory);
absl::StatusOr<CheckpointManifest> ReadCheckpointManifest(const std::string& step_directory);

// The verified content of a step directory, written by any number of ranks.
struct Checkpoint {
  CheckpointManifest manifest;
  std::vector<float> state;  // [manifest.elements()]
};
absl::StatusOr<Checkpoint> ReadCheckpoint(const std::string& step_directory);

// Verifies the shards first, first + stride, ... of a step directory: its message has one problem per file.
absl::Status VerifyShards(const std::string& step_directory, const CheckpointManifest& manifest,
                          int64_t first, int64_t stride);
// Verifies a step directory, alone or with other ranks (checkpoint.h). Unavailable: the server of the file
// system does not answer, so that nothing is known about the checkpoint.
using CheckpointVerifier = std::function<absl::Status(const std::string& step_directory)>;
absl::Status VerifyAlone(const std::string& step_directory);

struct CheckpointInfo {
  int64_t step = 0;
  std::string path;
  uint64_t bytes = 0;  // of its shards; this and the rest are 0 if the manifest cannot be read
  size_t shards = 0;
  std::optional<double> top1 = {};
  std::vector<std::string> problems = {};  // one per failed check; names the file
};
// All checkpoints in `path`, oldest first, or the one if `path` is a step directory. NotFound: none.
absl::StatusOr<std::vector<CheckpointInfo>> ListCheckpoints(const std::string& path);

struct CheckpointChoice {
  std::string path;                   // a step directory, completely verified; empty: none
  std::vector<std::string> warnings;  // for the user: what was skipped, and why
};

// For a run that saves into `directory`. `resume` is "never", "latest" (the newest valid one; none if the
// directory has none) or the number of a step. NotFound: that step does not exist. DataLoss: it is damaged,
// or, for "latest", all are. FailedPrecondition: there are later steps (any, for "never"), in the way of
// saves. Unavailable, as `verify` is: "latest" skips no checkpoint only because it cannot be read now.
absl::StatusOr<CheckpointChoice> ChooseCheckpointIn(const std::string& directory, const std::string& resume,
                                                    const CheckpointVerifier& verify = VerifyAlone);

// `path` itself if it is a step directory, else the newest valid one in it. NotFound if there is none.
absl::StatusOr<CheckpointChoice> FindCheckpoint(const std::string& path);

// What FindCheckpoint finds, and its content. A training that saves to the same directory may remove a step
// that was found before it is read: the next newest is read instead.
struct FoundCheckpoint {
  std::string path;
  Checkpoint checkpoint;
  std::vector<std::string> warnings;
};
absl::StatusOr<FoundCheckpoint> FindAndReadCheckpoint(const std::string& path);

// Turns the unfinished checkpoint, whose shards are complete and flushed, into the checkpoint of its step.
// AlreadyExists if a different one of that step exists, which is kept; an identical one counts as success,
// and a damaged one is renamed to step-N.damaged. If the existing one cannot be read now (`verify` returns
// Unavailable), CommitCheckpoint returns Unavailable and renames nothing.
absl::Status CommitCheckpoint(const std::string& directory, const CheckpointManifest& manifest,
                              const CheckpointVerifier& verify = VerifyAlone);

// Checkpoints to keep: the `keep` newest (0: all), steps divisible by keep_every (0: none), the best top-1.
struct Retention {
  int keep = 0;
  int64_t keep_every = 0;
};

// Removes the checkpoints before `step`, the last one committed, that need not be kept. It reads all that it
// counts as kept: removes none unless `step` is sound, and counts damaged ones out. Later ones belong to
// another course of training and are kept. Reading may take long, so it calls `check_owner` before each
// removal: an error means that the directory now belongs to another process.
absl::Status RemoveOldCheckpoints(const std::string& directory, int64_t step, const Retention& retention,
                                  const CheckpointVerifier& verify = VerifyAlone,
                                  const std::function<absl::Status()>& check_owner = absl::OkStatus);

// Makes an empty directory for the unfinished checkpoint of `step`, and removes an earlier one.
absl::Status CreateUnfinished(const std::string& directory, int64_t step);
// Removes it after a failure that is reported already.
void RemoveUnfinished(const std::string& directory, int64_t step);

}  // namespace deeper
