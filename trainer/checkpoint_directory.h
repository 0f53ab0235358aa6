// Where checkpoints lie: DIR/step-000120000/{manifest.json, shard-*.h5}. One process at a time looks after
// DIR; in a job, rank 0.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/file.h"
#include "trainer/checkpoint_manifest.h"

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

// Every checksum of a checkpoint, or of all checkpoints of a directory of them: what is wrong, and with which
// file. Empty if nothing is.
std::vector<std::string> VerifyCheckpoint(const std::string& path);

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

// Removes checkpoints older than the `keep` newest up to `step`; keep <= 0 keeps all. Later ones belong to
// another course of training and stay.
absl::Status RemoveOldCheckpoints(const std::string& directory, int64_t step, int keep);

}  // namespace deeper
