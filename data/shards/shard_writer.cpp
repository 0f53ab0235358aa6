#include "data/shards/shard_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "data/io/atomic_file.h"
#include "data/io/checksum.h"
#include "data/shards/shard_file.h"
#include "kernels/base/status.h"

namespace deeper {

absl::StatusOr<ShardWriter> ShardWriter::Create(const std::string& path, const ShardHeader& header,
                                                const ShardIndex& index) {
  const std::string temporary = path + kTemporarySuffix;
  ASSIGN_OR_RETURN(File file, File::Open(temporary, O_RDWR | O_CREAT | O_TRUNC));
  ShardWriter writer(path, index);
  writer.file_ = std::move(file);
  ASSIGN_OR_RETURN(Hdf5File hdf5, Hdf5File::Create(temporary));
  WriteHeaderAndIndex(header, index, &hdf5);
  const uint64_t bytes = index.offset.back() + PaddedBytes(index.length.back());
  const Hdf5Extent data = hdf5.Reserve("data", Hdf5Type::kU8, {bytes});
  RETURN_IF_ERROR(hdf5.Close());
  writer.data_offset_ = data.offset;
  ASSIGN_OR_RETURN(uint64_t size, writer.file_.Size());
  RETURN_IF_ERROR(writer.file_.Allocate(std::max(size, data.offset + data.bytes)));
  return writer;
}

ShardWriter::~ShardWriter() {
  if (file_.fd() >= 0) unlink(file_.path().c_str());
}

absl::Status ShardWriter::Put(int64_t sample, std::span<const uint8_t> bytes) {
  const auto i = static_cast<size_t>(sample);
  if (bytes.size() != index_->length[i] || Crc32c(bytes.data(), bytes.size()) != index_->crc32c[i]) {
    return DataLoss(index_->names[i], " changed while it was being packed; run pack again");
  }
  return file_.WriteAt(data_offset_ + index_->offset[i], bytes.data(), bytes.size());
}

absl::Status ShardWriter::Commit() {
  ASSIGN_OR_RETURN(ShardFile written, ShardFile::Open(file_.path()));
  const std::vector<std::string> problems = written.CheckSamples();
  if (!problems.empty()) return DataLoss(problems[0]);
  RETURN_IF_ERROR(file_.Sync());
  RETURN_IF_ERROR(RenameDurably(file_.path(), path_));
  file_ = File();
  return absl::OkStatus();
}

}  // namespace deeper
