#include "data/shards/shard_file.h"

#include <fcntl.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "data/io/checksum.h"
#include "kernels/base/status.h"

namespace deeper {

absl::Status ReadSample(const File& file, uint64_t offset, size_t bytes, uint32_t crc32c, uint8_t* out) {
  absl::Status read = file.ReadAt(offset, out, bytes);
  if (read.ok() && Crc32c(out, bytes) == crc32c) return read;
  // Only whole pages are dropped. 64 KiB is a multiple of all page sizes of Linux.
  constexpr uint64_t kPage = 64 << 10;
  const uint64_t begin = offset / kPage * kPage, end = (offset + bytes + kPage - 1) / kPage * kPage;
  posix_fadvise(file.fd(), static_cast<off_t>(begin), static_cast<off_t>(end - begin), POSIX_FADV_DONTNEED);
  return read.ok() ? DataLoss("its bytes do not match their CRC32C") : read;
}

absl::StatusOr<ShardFile> ShardFile::Open(const std::string& path) {
  ASSIGN_OR_RETURN(File file, File::Open(path, O_RDONLY));
  ASSIGN_OR_RETURN(uint64_t bytes, file.Size());
  ASSIGN_OR_RETURN(Hdf5File hdf5, Hdf5File::Open(path));
  ASSIGN_OR_RETURN(Hdf5Extent data, hdf5.Locate("data", Hdf5Type::kU8));
  ShardFile shard;
  RETURN_IF_ERROR(ReadHeaderAndIndex(hdf5, data.bytes, &shard.header_, &shard.index_));
  shard.file_ = std::move(file);
  shard.bytes_ = bytes;
  shard.data_offset_ = data.offset;
  return shard;
}

std::string ShardFile::Describe(int64_t i) const {
  return absl::StrCat(path(), ", sample ", i, " (", index_.names[static_cast<size_t>(i)], ")");
}

absl::Status ShardFile::Read(int64_t sample, std::vector<uint8_t>* out) const {
  const auto i = static_cast<size_t>(sample);
  out->resize(index_.length[i]);
  absl::Status read;
  for (int attempt = 0; attempt < 2; ++attempt) {
    read = ReadSample(file_, data_offset_ + index_.offset[i], out->size(), index_.crc32c[i], out->data());
    if (read.ok()) return read;
  }
  return DataLoss(Describe(sample), ": ", read.message());
}

std::vector<std::string> ShardFile::CheckSamples() const {
  std::vector<std::string> problems;
  std::vector<uint8_t> bytes;
  for (int64_t i = 0; i < header_.samples; ++i) {
    if (absl::Status read = Read(i, &bytes); !read.ok()) problems.emplace_back(read.message());
  }
  return problems;
}

}  // namespace deeper
