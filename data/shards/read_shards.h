// A packed split as a Dataset: reads its samples out of the shards.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "data/load/dataset.h"
#include "data/shards/staging.h"

namespace deeper {

// Packed shards under `dir` (docs/reference/formats.md). Reading the index of a split opens manifest.json, checks that
// the shards of `split` are all there, of the stated size, of one dataset_uuid, and that their indexes match
// their hash. NotFound / DataLoss / InvalidArgument naming the file and what to do.
//
// The index is 22 bytes a sample: one process of a job reads it, and the others, of the same build, are sent
// it. After that a shard's file is opened when a sample of it is first read. One that was changed or replaced
// by then, or later, is DataLoss when a sample of it is read.
//
// `direct_io`: past the page cache, which a data set larger than memory would only churn; FailedPrecondition
// where the file system cannot. Copies that were staged are read through it.
absl::StatusOr<std::string> ReadSplitIndex(const std::string& dir, const std::string& split);
absl::StatusOr<std::unique_ptr<Dataset>> OpenSplit(const std::string& dir, std::string index,
                                                   const StageOptions& stage = {}, bool direct_io = false);
// Both.
absl::StatusOr<std::unique_ptr<Dataset>> OpenShards(const std::string& dir, const std::string& split);

}  // namespace deeper
