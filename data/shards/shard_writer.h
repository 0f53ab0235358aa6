// Writes one shard under a temporary name; it gets its own once it is complete, checked and on disk.
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
  // Writes the index, complete beforehand, and reserves all the space: a full disk shows here. `index` must
  // outlive the writer.
  static absl::StatusOr<ShardWriter> Create(const std::string& path, const ShardHeader& header,
                                            const ShardIndex& index);
  ShardWriter(ShardWriter&&) noexcept = default;
  // Removes the temporary file of a shard not committed.
  ~ShardWriter();

  // Any thread, any order, each sample once. DataLoss if `bytes` are not what the index says.
  absl::Status Put(int64_t i, std::span<const uint8_t> bytes);
  // Opens the file again, reads every sample back, flushes, renames.
  absl::Status Commit();

 private:
  ShardWriter(std::string path, const ShardIndex& index) : path_(std::move(path)), index_(&index) {}

  std::string path_;
  const ShardIndex* index_;
  File file_;  // under the temporary name
  uint64_t data_offset_ = 0;
};

}  // namespace deeper
