#include "data/shards/shard_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/io/atomic_file.h"
#include "data/io/checksum.h"
#include "data/shards/shard_file.h"

namespace deeper {

absl::StatusOr<ShardWriter> ShardWriter::Create(const std::string& path, const ShardHeader& header,
                                                const ShardIndex& index) {
  const std::string temporary = path + kTemporarySuffix;
  absl::StatusOr<File> file = File::Open(temporary, O_RDWR | O_CREAT | O_TRUNC);
  if (!file.ok()) return file.status();
  ShardWriter writer(path, index);
  writer.file_ = *std::move(file);
  absl::StatusOr<Hdf5File> hdf5 = Hdf5File::Create(temporary);
  if (!hdf5.ok()) return hdf5.status();
  WriteHeaderAndIndex(header, index, &*hdf5);
  const uint64_t bytes = index.offset.back() + PaddedBytes(index.length.back());
  const Hdf5Extent data = hdf5->Reserve("data", Hdf5Type::kU8, {bytes});
  if (absl::Status closed = hdf5->Close(); !closed.ok()) return closed;
  writer.data_offset_ = data.offset;
  absl::StatusOr<uint64_t> size = writer.file_.Size();
  if (!size.ok()) return size.status();
  absl::Status allocated = writer.file_.Allocate(std::max(*size, data.offset + data.bytes));
  if (!allocated.ok()) return allocated;
  return writer;
}

ShardWriter::~ShardWriter() {
  if (file_.fd() >= 0) unlink(file_.path().c_str());
}

absl::Status ShardWriter::Put(int64_t sample, std::span<const uint8_t> bytes) {
  const auto i = static_cast<size_t>(sample);
  if (bytes.size() != index_->length[i] || Crc32c(bytes.data(), bytes.size()) != index_->crc32c[i]) {
    return absl::DataLossError(
        absl::StrCat(index_->names[i], " changed while it was being packed; run pack again"));
  }
  return file_.WriteAt(data_offset_ + index_->offset[i], bytes.data(), bytes.size());
}

absl::Status ShardWriter::Commit() {
  absl::StatusOr<ShardFile> written = ShardFile::Open(file_.path());
  if (!written.ok()) return written.status();
  std::vector<ShardProblem> problems;
  written->CheckSamples(&problems);
  if (!problems.empty()) return absl::DataLossError(problems[0].what);
  if (absl::Status synced = file_.Sync(); !synced.ok()) return synced;
  if (absl::Status renamed = RenameDurably(file_.path(), path_); !renamed.ok()) return renamed;
  file_ = File();
  return absl::OkStatus();
}

}  // namespace deeper
