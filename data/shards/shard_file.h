// One packed shard, open for reading.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/io/file.h"
#include "data/shards/shard_format.h"

namespace deeper {

// One try to read the `bytes` of a sample at `offset` of its file. DataLoss: they are not there or do not
// match `crc32c`; then the next try asks the disk, since the page cache may be what is damaged.
absl::Status ReadSample(const File& file, uint64_t offset, size_t bytes, uint32_t crc32c, uint8_t* out);

// HDF5 is used once, to open; samples are then read with pread from the file opened then, whatever happens to
// its name, outside HDF5's lock. Not mapped: a file cut short while mapped kills the process. Any number of
// threads may read.
class ShardFile {
 public:
  // Checks the structure and the index (ReadHeaderAndIndex), not the samples.
  static absl::StatusOr<ShardFile> Open(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const ShardHeader& header() const { return header_; }
  const ShardIndex& index() const { return index_; }
  uint64_t bytes() const { return bytes_; }
  uint64_t data_offset() const { return data_offset_; }
  // "PATH, sample 17 (n01440764/x.JPEG)"
  std::string Describe(int64_t i) const;

  // The stored bytes of sample `i`, after at most one more try. DataLoss: they do not match their checksum.
  absl::Status Read(int64_t i, std::vector<uint8_t>* out) const;
  // Reads every sample. What is wrong, for each that fails.
  std::vector<std::string> CheckSamples() const;

 private:
  ShardFile() = default;

  File file_;
  ShardHeader header_;
  ShardIndex index_;
  uint64_t bytes_ = 0, data_offset_ = 0;
};

}  // namespace deeper
