// Writes one shard under a temporary name, and renames it once it is complete, checked and on disk.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/io/file.h"
#include "data/shards/shard_format.h"

namespace deeper {

class ShardWriter {
 public:
  // Writes the index, which must be complete, and reserves all the space: a full disk is an error here.
  // `index` must outlive the writer.
  static absl::StatusOr<ShardWriter> Create(const std::string& path, const ShardHeader& header,
                                            const ShardIndex& index);
  ShardWriter(ShardWriter&&) noexcept = default;
  // Removes the temporary file of a shard that is not committed.
  ~ShardWriter();

  // From any thread, in any order, each sample once. DataLoss: `bytes` do not match the index.
  absl::Status Put(int64_t i, std::span<const uint8_t> bytes);
  // Reopens the file, reads every sample back, flushes, renames.
  absl::Status Commit();

 private:
  ShardWriter(std::string path, const ShardIndex& index) : path_(std::move(path)), index_(&index) {}

  std::string path_;
  const ShardIndex* index_;
  File file_;  // under the temporary name
  uint64_t data_offset_ = 0;
};

}  // namespace deeper
