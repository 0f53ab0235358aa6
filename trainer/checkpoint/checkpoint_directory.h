// DIR/step-000120000/{manifest.json, shard-*.h5}. One process at a time looks after DIR; in a job, rank 0.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/io/file.h"
#include "trainer/checkpoint/checkpoint_manifest.h"

namespace deeper {

std::string StepDirectory(const std::string& directory, int64_t step);
// Where the checkpoint of `step` grows until it is complete.
std::string UnfinishedStepDirectory(const std::string& directory, int64_t step);

// Creates the directory, makes sure that it can be written, and removes what interrupted saves left. The lock
// lasts as long as the returned File. FailedPrecondition: another job has it.
absl::StatusOr<File> OpenCheckpointDirectory(const std::string& directory);

std::string CheckpointManifestPath(const std::string& step_directory);
absl::StatusOr<std::string> ReadCheckpointManifestText(const std::string& step_directory);
absl::StatusOr<CheckpointManifest> ReadCheckpointManifest(const std::string& step_directory);

// All of a step directory, whoever wrote it, verified.
struct Checkpoint {
  CheckpointManifest manifest;
  std::vector<float> state;  // [manifest.elements()]
};
absl::StatusOr<Checkpoint> ReadCheckpoint(const std::string& step_directory);

struct CheckpointInfo {
  int64_t step = 0;
  std::string path;
  uint64_t bytes = 0;  // of its shards; 0 where the manifest cannot be read, and so on
  size_t shards = 0;
  std::optional<double> top1 = {};
  std::vector<std::string> problems = {};  // of every checksum: what is wrong, and with which file
};
// Of a directory of checkpoints, oldest first; or of the one step directory that `path` is. NotFound: none.
absl::StatusOr<std::vector<CheckpointInfo>> ListCheckpoints(const std::string& path);

struct CheckpointChoice {
  std::string path;                   // a step directory, every byte of it verified; empty: none
  std::vector<std::string> warnings;  // for the user: what was passed over, and why
};

// `resume` is "never", "latest" (the newest valid one; none if there is none at all) or the number of a step.
// NotFound: that step is not there. DataLoss: it is damaged, or, for "latest", all there are.
absl::StatusOr<CheckpointChoice> ChooseCheckpointIn(const std::string& directory, const std::string& resume);

// `path` itself where it is a step directory, else the newest valid one in it. NotFound if there is none.
absl::StatusOr<CheckpointChoice> FindCheckpoint(const std::string& path);

// Makes the unfinished checkpoint, its shards complete and flushed, the checkpoint of its step. AlreadyExists
// if there is another one of that step, which is left alone; the very same one counts as success.
absl::Status CommitCheckpoint(const std::string& directory, const CheckpointManifest& manifest);

// What stays: the `keep` newest (0: all), steps that keep_every divides (0: none), and the best top-1.
struct Retention {
  int keep = 0;
  int64_t keep_every = 0;
};

// Removes the checkpoints before `step`, the one committed last, that need not stay; but none unless that one
// reads back right. Later ones belong to another course of training and stay.
absl::Status RemoveOldCheckpoints(const std::string& directory, int64_t step, const Retention& retention);

// Makes an empty directory for the checkpoint of `step` to grow in, whatever was there.
absl::Status CreateUnfinished(const std::string& directory, int64_t step);
// Away with it, after a failure that is reported already.
void RemoveUnfinished(const std::string& directory, int64_t step);

}  // namespace deeper
