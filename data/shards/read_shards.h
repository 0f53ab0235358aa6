// A packed split as a Dataset: reads its samples from the shards.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "data/load/dataset.h"
#include "data/shards/staging.h"

namespace deeper {

// Packed shards under `dir` (docs/reference/formats.md). ReadSplitIndex opens manifest.json and checks that
// all shards of `split` exist, have the stated size and one dataset_uuid, and that their indexes match their
// hash. NotFound / DataLoss / InvalidArgument, naming the file and what to do.
//
// The index has 22 bytes per sample. One process of a job reads it and sends it to the others, which must be
// of the same build. A shard's file is opened when one of its samples is first read. Reading a sample of a
// shard that has been changed or replaced since then is DataLoss.
struct ReadOptions {
  StageOptions stage = {};
  // Bypasses the page cache, which is of no use for a data set larger than memory. FailedPrecondition if the
  // file system does not support it. Staged copies are still read through the page cache.
  bool direct_io = false;
  // A read waits so long for a file system whose server does not answer; then it is Unavailable.
  double outage_seconds = 240;
  // Called on a reader's thread when an outage begins and when it is over; may be empty.
  std::function<void(const std::string& message)> report = nullptr;
};

absl::StatusOr<std::string> ReadSplitIndex(const std::string& dir, const std::string& split);
absl::StatusOr<std::unique_ptr<Dataset>> OpenSplit(const std::string& dir, std::string index,
                                                   const ReadOptions& options = {});

}  // namespace deeper
