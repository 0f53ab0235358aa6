#include "trainer/monitor/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <bit>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/io/atomic_file.h"
#include "data/io/checksum.h"
#include "data/io/protobuf.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

// Field numbers: event.proto and summary.proto of TensorFlow.
std::string Event(int64_t step, double time, int what, const std::string& content) {
  return absl::StrCat(DoubleField(1, time), IntField(2, step), BytesField(what, content));
}
constexpr int kFileVersion = 3, kSummary = 5, kSessionLog = 7;

// TFRecord masks its checksums like this because the data may contain checksums itself.
std::string MaskedCrc(const std::string& bytes) {
  return FixedBytes(std::rotr(Crc32c(bytes.data(), bytes.size()), 15) + 0xa282ead8u);
}

}  // namespace

absl::StatusOr<EventFile> EventFile::Create(const std::string& directory, int64_t first_step, double time) {
  RETURN_IF_ERROR(CreateDirectories(directory));
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  const std::string name = absl::StrFormat("events.out.tfevents.%010d.%s.%d", static_cast<int64_t>(time),
                                           host, static_cast<int>(getpid()));
  ASSIGN_OR_RETURN(File opened,
                   File::Open(absl::StrCat(directory, "/", name), O_WRONLY | O_CREAT | O_EXCL | O_APPEND));
  EventFile file(std::move(opened));
  RETURN_IF_ERROR(file.AppendRecord(Event(0, time, kFileVersion, "brain.Event:2")));
  const std::string session_start = IntField(1, 1);
  RETURN_IF_ERROR(file.AppendRecord(Event(first_step, time, kSessionLog, session_start)));
  return file;
}

absl::Status EventFile::Append(int64_t step, double time, const std::vector<Scalar>& scalars) {
  std::string summary;
  for (const auto& [tag, value] : scalars)
    summary += BytesField(1, BytesField(1, tag) + FloatField(2, static_cast<float>(value)));
  return AppendRecord(Event(step, time, kSummary, summary));
}

absl::Status EventFile::AppendRecord(const std::string& event) {
  const std::string length = FixedBytes(uint64_t{event.size()});
  const std::string record = absl::StrCat(length, MaskedCrc(length), event, MaskedCrc(event));
  ASSIGN_OR_RETURN(const uint64_t size, file_.Size());
  const ssize_t written = write(file_.fd(), record.data(), record.size());
  if (written == static_cast<ssize_t>(record.size())) return absl::OkStatus();
  absl::Status failed = IoError("write events to", file_.path(), written < 0 ? errno : ENOSPC);
  if (written > 0 && ftruncate(file_.fd(), static_cast<off_t>(size)) != 0)
    return IoError("remove an incomplete event from", file_.path(), errno);
  return failed;
}

}  // namespace deeper
