// Lists the members of a tar archive and the positions of their bytes, without reading the contents, so that
// each can be read in place. Reads what GNU tar, bsdtar and Python write: ustar, GNU and pax.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace deeper {

struct TarMember {
  std::string name;
  uint64_t offset = 0, bytes = 0;  // of its content, as `read` takes them
};

// Reads exactly `bytes` from `offset`.
using ReadAt = std::function<absl::Status(uint64_t offset, void* data, size_t bytes)>;

// The regular files of the archive at [begin, end) of what `read` reads, in the archive's order, without
// folders. Every member lies inside the archive. DataLoss: damaged, truncated, or not a tar archive.
// InvalidArgument: compressed. Unimplemented: links, sparse files and other types without contiguous content
// of their own.
absl::StatusOr<std::vector<TarMember>> ListTar(const ReadAt& read, uint64_t begin, uint64_t end);

}  // namespace deeper
