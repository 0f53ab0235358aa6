#include "launch/commands/logits_file.h"

#include <fcntl.h>

#include <utility>
#include <vector>

#include "comm/agree.h"
#include "data/io/atomic_file.h"
#include "data/io/hdf5_file.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

// Offset of /logits, whose bytes are still to be written.
absl::StatusOr<uint64_t> Lay(const std::string& path, const Dataset& dataset, int64_t classes) {
  const auto samples = static_cast<uint64_t>(dataset.info().samples);
  ASSIGN_OR_RETURN(Hdf5File file, Hdf5File::Create(path));
  const Hdf5Extent logits = file.Reserve("logits", Hdf5Type::kF32, {samples, static_cast<uint64_t>(classes)});
  std::vector<uint32_t> labels(samples);
  for (uint64_t i = 0; i < samples; ++i)
    labels[i] = static_cast<uint32_t>(dataset.label(static_cast<int64_t>(i)));
  file.Write("labels", labels);
  RETURN_IF_ERROR(file.Close());
  return logits.offset;
}

}  // namespace

absl::StatusOr<LogitsFile> LogitsFile::Create(const std::string& path, const Dataset& dataset,
                                              int64_t classes, Communicator& comm) {
  LogitsFile logits;
  logits.path_ = path;
  logits.classes_ = classes;
  absl::StatusOr<uint64_t> offset = uint64_t{0};
  if (comm.rank() == 0) offset = Lay(path + kTemporarySuffix, dataset, classes);
  ASSIGN_OR_RETURN(logits.offset_, Agree(comm, offset));
  comm.Broadcast(&logits.offset_, sizeof logits.offset_, 0, {}).Wait();
  ASSIGN_OR_RETURN(logits.file_, Agree(comm, File::Open(path + kTemporarySuffix, O_WRONLY)));
  return logits;
}

void LogitsFile::Write(const Batch& batch, const float* logits) {
  const uint64_t row_bytes = static_cast<uint64_t>(classes_) * sizeof(float);
  for (int64_t row = 0; row < batch.rows && status_.ok(); ++row) {
    status_ = file_.WriteAt(offset_ + batch.samples[row] * row_bytes, logits + row * classes_, row_bytes);
  }
}

absl::Status LogitsFile::Commit(Communicator& comm) {
  if (status_.ok()) status_ = file_.Sync();
  RETURN_IF_ERROR(Agree(comm, status_));
  return Agree(comm, comm.rank() == 0 ? RenameDurably(path_ + kTemporarySuffix, path_) : absl::OkStatus());
}

}  // namespace deeper
