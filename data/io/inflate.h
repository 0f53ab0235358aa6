// Decompresses whole zlib and gzip streams in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace deeper {

// DataLoss: damaged, truncated, or more than `max_bytes` when decompressed.
absl::StatusOr<std::vector<uint8_t>> Inflate(std::span<const uint8_t> packed, size_t max_bytes);

}  // namespace deeper
