// The files in a zip archive, as PyTorch writes it: stored without compression, below 4 GiB.
// Source: APPNOTE.TXT 6.3.3 of PKWARE.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace deeper {

using ZipRecords = std::map<std::string, std::span<const uint8_t>>;

// Views into `bytes`, by name. DataLoss: damaged, truncated, a wrong checksum, or two files of one name.
// Unimplemented: compressed or encrypted files, archives in parts or of 4 GiB and more.
absl::StatusOr<ZipRecords> ListZip(std::span<const uint8_t> bytes);

}  // namespace deeper
