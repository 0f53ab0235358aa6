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

// One attempt to read the `bytes` of a sample at `offset` of its file. DataLoss: they are missing or do not
// match `crc32c`. The next attempt then reads from disk, since the page cache may be damaged.
absl::Status ReadSample(const File& file, uint64_t offset, size_t bytes, uint32_t crc32c, uint8_t* out);

// Opens with HDF5, then reads samples with pread, without HDF5's lock, from the same file even if it is
// renamed or removed. Does not map the file: truncating a mapped file kills the process. Any number of
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

  // The stored bytes of sample `i`; tries twice. DataLoss: they do not match their checksum.
  absl::Status Read(int64_t i, std::vector<uint8_t>* out) const;
  // Reads every sample. Returns what is wrong with each that fails.
  std::vector<std::string> CheckSamples() const;

 private:
  ShardFile() = default;

  File file_;
  ShardHeader header_;
  ShardIndex index_;
  uint64_t bytes_ = 0, data_offset_ = 0;
};

}  // namespace deeper
