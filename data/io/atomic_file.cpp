#include "data/io/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "kernels/base/input_output.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

absl::Status WriteAndSync(const std::string& path, std::string_view content) {
  ASSIGN_OR_RETURN(File file, File::Open(path, O_WRONLY | O_CREAT | O_TRUNC));
  RETURN_IF_ERROR(file.WriteAt(0, content.data(), content.size()));
  RETURN_IF_ERROR(file.Sync());
  return file.Close();
}

std::string ParentOf(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path();
  return parent.empty() ? "." : parent;
}

}  // namespace

absl::Status CheckWritable(const std::string& path) {
  std::error_code error;
  if (path.empty()) return InvalidArgument("cannot write a file without a name; choose a path");
  if (std::filesystem::exists(path, error) && !std::filesystem::is_regular_file(path, error)) {
    return AsInputOutput(FailedPrecondition("cannot write ", path,
                                            ": it exists and is not a regular file; choose another path"));
  }
  if (error) return IoError("write", path, error.value());
  if (const std::string parent = ParentOf(path);
      std::filesystem::exists(parent, error) && !std::filesystem::is_directory(parent, error)) {
    return IoError("write", path, ENOTDIR);
  }
  if (access(ParentOf(path).c_str(), W_OK | X_OK) != 0) return IoError("write", path, errno);
  return absl::OkStatus();
}

absl::Status WriteFileAtomically(const std::string& path, std::string_view content) {
  RETURN_IF_ERROR(CheckWritable(path));
  const std::string temporary = path + kTemporarySuffix;
  absl::Status status = WriteAndSync(temporary, content);
  if (status.ok()) status = RenameDurably(temporary, path);
  if (!status.ok()) unlink(temporary.c_str());
  return status;
}

absl::Status RenameDurably(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0)
    return IoError(absl::StrCat("rename ", from, " to"), to, errno);
  return SyncDirectory(ParentOf(to));
}

absl::Status SyncDirectory(const std::string& directory) {
  absl::StatusOr<File> opened = File::Open(directory, O_RDONLY | O_DIRECTORY);
  return opened.ok() ? opened->Sync() : opened.status();
}

absl::Status CreateDirectories(const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (!error) return absl::OkStatus();
  std::error_code unknown;
  for (std::filesystem::path part = directory; part.has_relative_path(); part = part.parent_path()) {
    if (!std::filesystem::is_symlink(part, unknown) || std::filesystem::exists(part, unknown)) continue;
    return FailedPrecondition("cannot create directory ", directory, ": ", part.string(), " is a link to ",
                              std::filesystem::read_symlink(part, unknown).string(),
                              ", which does not exist; create that, or remove the link");
  }
  return IoError("create directory", directory, error.value());
}

absl::Status CreateParentDirectory(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path();
  return parent.empty() ? absl::OkStatus() : CreateDirectories(parent);
}

}  // namespace deeper
