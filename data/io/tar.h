// The members of a tar archive and where their bytes lie, found without reading the contents, so that any of
// them can then be read at its place. Reads what GNU tar, bsdtar and Python write: ustar, GNU and pax.
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
  uint64_t offset = 0, bytes = 0;  // of its content, counted as `read` counts
};

// Exactly `bytes` from `offset` on.
using ReadAt = std::function<absl::Status(uint64_t offset, void* data, size_t bytes)>;

// The regular files of the archive at [begin, end) of what `read` reads, in the archive's order, folders left
// out. Every member lies inside the archive. DataLoss: damaged, cut short, or no tar archive. Unimplemented:
// links, sparse files and the like, which have no content of their own in one piece.
absl::StatusOr<std::vector<TarMember>> ListTar(const ReadAt& read, uint64_t begin, uint64_t end);

}  // namespace deeper
