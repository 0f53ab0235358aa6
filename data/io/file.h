// A file descriptor that closes itself, with complete reads and writes, and system errors as Status.
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
// ResourceExhausted, missing rights PermissionDenied, a missing file NotFound, an I/O error DataLoss.
absl::Status IoError(const std::string& action, const std::string& path, int error);

// Positional, so that any number of threads may read and write at once.
class File {
 public:
  File() = default;
  File(File&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), direct_(other.direct_), path_(std::move(other.path_)) {}
  File& operator=(File&& other) noexcept;
  ~File();

  // `flags` as of open(2); O_CLOEXEC is added, new files get mode 0666 less the umask. Of a file opened with
  // O_DIRECT any bytes can be read, through aligned memory. FailedPrecondition: its file system has no such
  // way.
  static absl::StatusOr<File> Open(const std::string& path, int flags);

  const std::string& path() const { return path_; }
  int fd() const { return fd_; }
  absl::StatusOr<uint64_t> Size() const;
  // Exactly `bytes`; DataLoss where the file ends before.
  absl::Status ReadAt(uint64_t offset, void* data, size_t bytes) const;
  absl::Status WriteAt(uint64_t offset, const void* data, size_t bytes) const;
  // Reserves the disk space of the first `bytes`, so that a full disk shows before anything is written.
  absl::Status Allocate(uint64_t bytes) const;
  absl::Status Sync() const;
  // What the destructor does, for files written to: some file systems tell of failed writes only here.
  absl::Status Close();

 private:
  File(int fd, std::string path, bool direct) : fd_(fd), direct_(direct), path_(std::move(path)) {}
  absl::Status ReadAligned(uint64_t offset, void* data, size_t bytes) const;

  int fd_ = -1;
  bool direct_ = false;
  std::string path_;
};

absl::StatusOr<std::vector<uint8_t>> ReadFile(const std::string& path);
// The lines that are not empty, without their ends, \n or \r\n, and without a byte order mark of UTF-8.
absl::StatusOr<std::vector<std::string>> ReadLines(const std::string& path);

}  // namespace deeper
