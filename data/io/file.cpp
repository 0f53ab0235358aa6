#include "data/io/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "kernels/base/input_output.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

struct Advice {
  absl::StatusCode code;
  const char* hint;
};

Advice AdviceFor(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return {absl::StatusCode::kResourceExhausted,
              "; free space there, raise the quota or file size limit, or use another directory"};
    case EMFILE:
    case ENFILE:
      return {absl::StatusCode::kResourceExhausted, "; raise the limit of open files (ulimit -n)"};
    case EACCES:
    case EPERM:
    case EROFS:
      return {absl::StatusCode::kPermissionDenied, "; change its permissions or use another directory"};
    case ENOENT:
    case ENOTDIR:
      return {absl::StatusCode::kNotFound, "; check the path"};
    case EISDIR:
      return {absl::StatusCode::kFailedPrecondition, "; name a file"};
    case ENAMETOOLONG:
      return {absl::StatusCode::kFailedPrecondition, "; use a shorter path"};
    case EIO:
      return {absl::StatusCode::kDataLoss, "; check the disk"};
    case ESTALE:
      return {absl::StatusCode::kUnavailable, "; it was removed or replaced on its file server"};
    case EBADFD:
    case ECONNABORTED:
    case ECONNREFUSED:
    case ECONNRESET:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENETDOWN:
    case ENETUNREACH:
    case ENOTCONN:
    case EREMOTEIO:
    case ESHUTDOWN:
    case ETIMEDOUT:
      return {absl::StatusCode::kUnavailable, "; check the server of this file system and the network"};
    default:
      return {absl::ErrnoToStatusCode(error), ""};
  }
}

}  // namespace

absl::Status IoError(const std::string& action, const std::string& path, int error) {
  const Advice advice = AdviceFor(error);
  return AsInputOutput({advice.code, absl::StrCat("cannot ", action, " ", path, ": ",
                                                  std::generic_category().message(error), advice.hint)});
}

File& File::operator=(File&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(direct_, other.direct_);
  std::swap(path_, other.path_);
  return *this;
}

File::~File() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<File> File::Open(const std::string& path, int flags) {
  const int fd = open(path.c_str(), flags | O_CLOEXEC, 0666);
  if (fd < 0 && errno == EINVAL && (flags & O_DIRECT) != 0) {
    return FailedPrecondition(path, " is on a file system that does not support O_DIRECT");
  }
  if (fd < 0) return IoError((flags & O_ACCMODE) == O_RDONLY ? "open" : "create", path, errno);
  return File(fd, path, (flags & O_DIRECT) != 0);
}

absl::StatusOr<uint64_t> File::Size() const {
  struct stat info;
  if (fstat(fd_, &info) != 0) return IoError("stat", path_, errno);
  return static_cast<uint64_t>(info.st_size);
}

absl::Status File::ReadAt(uint64_t offset, void* data, size_t bytes) const {
  if (direct_) return ReadAligned(offset, data, bytes);
  auto* to = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t got = pread(fd_, to, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return IoError("read", path_, errno);
    if (got == 0) return DataLoss(path_, " is truncated at byte ", offset);
    to += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

// Reads the surrounding blocks into a thread-local buffer, and copies the wanted bytes from there.
absl::Status File::ReadAligned(uint64_t offset, void* data, size_t bytes) const {
  constexpr size_t kBlock = 4096, kPiece = size_t{1} << 20;
  struct Free {
    void operator()(void* memory) const { std::free(memory); }  // NOLINT(cppcoreguidelines-no-malloc)
  };
  thread_local const std::unique_ptr<char, Free> piece(
      static_cast<char*>(std::aligned_alloc(kBlock, kPiece)));
  auto* to = static_cast<char*>(data);
  while (bytes > 0) {
    const uint64_t skipped = offset % kBlock;
    const size_t wanted = std::min(kPiece, (skipped + bytes + kBlock - 1) / kBlock * kBlock);
    const ssize_t got = pread(fd_, piece.get(), wanted, static_cast<off_t>(offset - skipped));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return IoError("read", path_, errno);
    if (static_cast<uint64_t>(got) <= skipped) return DataLoss(path_, " is truncated at byte ", offset);
    const size_t taken = std::min(bytes, static_cast<size_t>(got) - skipped);
    std::memcpy(to, piece.get() + skipped, taken);
    to += taken;
    offset += taken;
    bytes -= taken;
  }
  return absl::OkStatus();
}

absl::Status File::WriteAt(uint64_t offset, const void* data, size_t bytes) const {
  const auto* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t put = pwrite(fd_, from, bytes, static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return IoError("write", path_, errno);
    from += put;
    offset += static_cast<uint64_t>(put);
    bytes -= static_cast<size_t>(put);
  }
  return absl::OkStatus();
}

absl::Status File::Allocate(uint64_t bytes) const {
  int error = EINTR;
  while (error == EINTR) error = posix_fallocate(fd_, 0, static_cast<off_t>(bytes));
  return error == 0 ? absl::OkStatus() : IoError("write", path_, error);
}

absl::Status File::Sync() const {
  int result = fsync(fd_);
  while (result != 0 && errno == EINTR) result = fsync(fd_);
  // Some network file systems cannot flush a directory and return EINVAL.
  if (result != 0 && errno != EINVAL) return IoError("flush to disk", path_, errno);
  return absl::OkStatus();
}

absl::Status File::Close() {
  // close frees the descriptor even when it returns an error.
  if (close(std::exchange(fd_, -1)) != 0 && errno != EINTR) return IoError("close", path_, errno);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<uint8_t>> ReadFile(const std::string& path) {
  constexpr size_t kLeast = 4096;
  ASSIGN_OR_RETURN(const File file, File::Open(path, O_RDONLY));
  ASSIGN_OR_RETURN(const uint64_t size, file.Size());  // of a pipe, and in /proc: 0
  std::vector<uint8_t> content(std::max<size_t>(size + 1, kLeast));
  for (size_t filled = 0;;) {
    const ssize_t got = read(file.fd(), content.data() + filled, content.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return IoError("read", path, errno);
    filled += static_cast<size_t>(got);
    if (got == 0) {
      content.resize(filled);
      return content;
    }
    if (filled == content.size()) content.resize(2 * filled);
  }
}

absl::StatusOr<std::string> ReadText(const std::string& path) {
  constexpr absl::string_view kByteOrderMark = "\xEF\xBB\xBF";
  ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes, ReadFile(path));
  const std::string text(bytes.begin(), bytes.end());
  return std::string(absl::StripPrefix(text, kByteOrderMark));
}

absl::StatusOr<std::vector<std::string>> ReadLines(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadText(path));
  std::vector<std::string> lines;
  for (const absl::string_view line : absl::StrSplit(text, absl::ByAnyChar("\r\n"))) {
    const absl::string_view kept = absl::StripTrailingAsciiWhitespace(line);
    if (!kept.empty()) lines.emplace_back(kept);
  }
  return lines;
}

}  // namespace deeper
