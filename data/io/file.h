// A file descriptor closed by its destructor, with complete reads and writes. System errors become a Status.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace deeper {

// Status of a failed system call: "cannot <action> <path>: <why>; <what to do>". A full disk is
// ResourceExhausted, missing permission PermissionDenied, a missing file NotFound, an I/O error DataLoss.
// Unavailable: the server of a network file system does not answer, or does not know the open file any more;
// the file may be there again later, when it is opened anew.
absl::Status IoError(const std::string& action, const std::string& path, int error);

// Reads and writes at given offsets, so any number of threads may use it at once.
class File {
 public:
  File() = default;
  File(File&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), direct_(other.direct_), path_(std::move(other.path_)) {}
  File& operator=(File&& other) noexcept;
  ~File();

  // `flags` as of open(2), plus O_CLOEXEC; new files get mode 0666 minus the umask. With O_DIRECT, ReadAt
  // still reads any bytes, through aligned memory. FailedPrecondition: the file system does not support
  // O_DIRECT.
  static absl::StatusOr<File> Open(const std::string& path, int flags);

  const std::string& path() const { return path_; }
  int fd() const { return fd_; }
  absl::StatusOr<uint64_t> Size() const;
  // Exactly `bytes`; DataLoss if the file ends before.
  absl::Status ReadAt(uint64_t offset, void* data, size_t bytes) const;
  absl::Status WriteAt(uint64_t offset, const void* data, size_t bytes) const;
  // Reserves disk space for the first `bytes`, to detect a full disk before writing.
  absl::Status Allocate(uint64_t bytes) const;
  absl::Status Sync() const;
  // As the destructor, but reports errors: some file systems report failed writes only on close.
  absl::Status Close();

 private:
  File(int fd, std::string path, bool direct) : fd_(fd), direct_(direct), path_(std::move(path)) {}
  absl::Status ReadAligned(uint64_t offset, void* data, size_t bytes) const;

  int fd_ = -1;
  bool direct_ = false;
  std::string path_;
};

// All bytes up to the end of the file, which may be a pipe.
absl::StatusOr<std::vector<uint8_t>> ReadFile(const std::string& path);
// As ReadFile, without a UTF-8 byte order mark.
absl::StatusOr<std::string> ReadText(const std::string& path);
// The lines of text that are not blank, without their line ends (\n or \r\n) and trailing white space.
absl::StatusOr<std::vector<std::string>> ReadLines(const std::string& path);

}  // namespace deeper
