#include "trainer/monitor/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <bit>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/io/atomic_file.h"
#include "data/io/checksum.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

template <class Number>
std::string Bytes(Number value) {  // little-endian, as this machine is
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

// The few parts of protobuf's wire format that an Event has: a key is the field's number and its type.
enum WireType { kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5 };

std::string Varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

std::string Key(int field, WireType type) {
  return Varint(static_cast<uint64_t>(field) << 3 | type);
}

std::string Message(int field, const std::string& content) {  // also for strings
  return absl::StrCat(Key(field, kLengthDelimited), Varint(content.size()), content);
}

// Field numbers: event.proto and summary.proto of TensorFlow.
std::string Event(int64_t step, double time, int what, const std::string& content) {
  return absl::StrCat(Key(1, kFixed64), Bytes(time), Key(2, kVarint), Varint(static_cast<uint64_t>(step)),
                      Message(what, content));
}
constexpr int kFileVersion = 3, kSummary = 5, kSessionLog = 7;

// TFRecord masks its checksums like this because the data may contain checksums itself.
std::string MaskedCrc(const std::string& bytes) {
  return Bytes(std::rotr(Crc32c(bytes.data(), bytes.size()), 15) + 0xa282ead8u);
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
  const std::string session_start = Key(1, kVarint) + Varint(1);
  RETURN_IF_ERROR(file.AppendRecord(Event(first_step, time, kSessionLog, session_start)));
  return file;
}

absl::Status EventFile::Append(int64_t step, double time, const std::vector<Scalar>& scalars) {
  std::string summary;
  for (const auto& [tag, value] : scalars)
    summary += Message(1, absl::StrCat(Message(1, tag), Key(2, kFixed32), Bytes(static_cast<float>(value))));
  return AppendRecord(Event(step, time, kSummary, summary));
}

absl::Status EventFile::AppendRecord(const std::string& event) {
  const std::string length = Bytes(uint64_t{event.size()});
  const std::string record = absl::StrCat(length, MaskedCrc(length), event, MaskedCrc(event));
  const ssize_t written = write(file_.fd(), record.data(), record.size());
  if (written == static_cast<ssize_t>(record.size())) return absl::OkStatus();
  return IoError("write events to", file_.path(), written < 0 ? errno : ENOSPC);
}

}  // namespace deeper
