// Files and directories that are either there, complete and on disk, or not there at all.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/io/file.h"

namespace deeper {

// Ends the name of what is not finished yet.
constexpr char kTemporarySuffix[] = ".tmp";

// Writes path.tmp, flushes it, renames it to `path` (replacing what was there) and flushes the directory. On
// an error `path` is what it was; so is what is no regular file, as a device or a pipe, which is an error.
absl::Status WriteFileAtomically(const std::string& path, std::string_view content);

// Renames a file or directory, already flushed, within one directory, and flushes that directory.
absl::Status RenameDurably(const std::string& from, const std::string& to);

absl::Status SyncDirectory(const std::string& directory);

// mkdir -p. PermissionDenied, NotFound or ResourceExhausted naming the path.
absl::Status CreateDirectories(const std::string& directory);

// Held while the returned File lives. FailedPrecondition if another process holds it. File systems without
// locks grant it.
absl::StatusOr<File> LockDirectory(const std::string& directory);

// CreateDirectories for the directory that `path` is in.
absl::Status CreateParentDirectory(const std::string& path);

}  // namespace deeper
