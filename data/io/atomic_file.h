// Atomic writes: a file or directory is either complete and on disk, or does not exist.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/io/file.h"

namespace deeper {

// Suffix of unfinished files.
constexpr char kTemporarySuffix[] = ".tmp";

// Writes path.tmp, flushes it, renames it to `path` (replacing an older file) and flushes the directory. On
// an error, `path` is unchanged. A `path` that is not a regular file, such as a device or pipe, is an error.
absl::Status WriteFileAtomically(const std::string& path, std::string_view content);

// Whether `path` can be written as WriteFileAtomically does it, to detect before long work that it cannot:
// its directory exists and is writable, and it is a regular file or does not exist.
absl::Status CheckWritable(const std::string& path);

// Renames a flushed file or directory within one directory, and flushes that directory.
absl::Status RenameDurably(const std::string& from, const std::string& to);

absl::Status SyncDirectory(const std::string& directory);

// mkdir -p. PermissionDenied, NotFound or ResourceExhausted naming the path.
absl::Status CreateDirectories(const std::string& directory);

// CreateDirectories for the directory that `path` is in.
absl::Status CreateParentDirectory(const std::string& path);

}  // namespace deeper
