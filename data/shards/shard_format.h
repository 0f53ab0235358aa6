// Shards, version 1 (docs/reference/formats.md): their contents except the samples' bytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/io/hdf5_file.h"
#include "kernels/base/choice.h"

namespace deeper {

enum class Encoding { kRaw, kJpeg };  // HWC pixels; a JPEG file
constexpr auto Choices(Encoding) {
  return std::to_array<Choice<Encoding>>(
      {{"raw", Encoding::kRaw, "pixels"}, {"jpeg", Encoding::kJpeg, "JPEG files, unchanged where possible"}});
}
absl::StatusOr<Encoding> ParseEncoding(const std::string& name);

constexpr uint64_t kSampleAlignment = 64;
constexpr uint64_t PaddedBytes(uint64_t bytes) {
  return (bytes + kSampleAlignment - 1) / kSampleAlignment * kSampleAlignment;
}

constexpr size_t kMaxClasses = 65536;  // labels are u16

// Sample flags.
constexpr uint16_t kReencoded = 1;  // the JPEG was made while packing, from another format or size

// The root attributes.
struct ShardHeader {
  Encoding encoding = Encoding::kRaw;
  int64_t channels = 3;
  std::string uuid, split;
  int64_t shard_index = 0, shard_count = 1;
  int64_t first_sample = 0, samples = 0, total_samples = 0;

  friend bool operator==(const ShardHeader&, const ShardHeader&) = default;
};

// The arrays with one entry per sample, and the class names.
struct ShardIndex {
  std::vector<uint64_t> offset;  // from the start of /data
  std::vector<uint32_t> length, crc32c;
  std::vector<uint16_t> label, width, height, flags;
  FixedStrings names, classes;
};

// index_xxh3: XXH3-128 of the arrays' bytes as stored, in the order offset, length, label, crc32c, width,
// height, flags, name, classes.
std::string HashIndex(const ShardIndex& index);

// train-00042-of-00160.h5
std::string ShardFileName(const std::string& split, int64_t index, int64_t count);
// Whether `name` is a shard file name of `split`, with any index and count.
bool IsShardFileName(const std::string& name, const std::string& split);

// Errors show at file->Close().
void WriteHeaderAndIndex(const ShardHeader& header, const ShardIndex& index, Hdf5File* file);
// Checks that every array has an entry per sample, and that every entry agrees with the header and lies
// inside the `data_bytes` of /data. Later reads need no more checks. DataLoss, naming `path` and the sample.
absl::Status CheckIndex(const std::string& path, uint64_t data_bytes, const ShardHeader& header,
                        const ShardIndex& index);
// Reads both, and checks the index against its hash and with CheckIndex. DataLoss: damaged.
// FailedPrecondition: not a shard of this version.
absl::Status ReadHeaderAndIndex(const Hdf5File& file, uint64_t data_bytes, ShardHeader* header,
                                ShardIndex* index);

}  // namespace deeper
