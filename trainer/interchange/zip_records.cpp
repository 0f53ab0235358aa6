#include "trainer/interchange/zip_records.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>

#include "kernels/base/status.h"

namespace deeper {
namespace {

constexpr size_t kLocalHeader = 30, kCentralHeader = 46, kEnd = 22, kLongestComment = 65535;
constexpr uint32_t kLocalMark = 0x04034b50, kCentralMark = 0x02014b50, kEndMark = 0x06054b50;
constexpr uint32_t kIn64Bits = 0xffffffff;

// The number at an offset of a header that is known to be long enough.
template <class Int>
Int At(std::span<const uint8_t> header, size_t offset) {
  Int number;
  std::memcpy(&number, header.data() + offset, sizeof number);
  return number;
}

absl::Status Damaged(const char* what) {
  return DataLoss("damaged zip archive: ", what);
}

// The record that ends the archive, which a comment may follow.
absl::StatusOr<std::span<const uint8_t>> FindEnd(std::span<const uint8_t> bytes) {
  for (size_t comment = 0; comment <= kLongestComment && comment + kEnd <= bytes.size(); ++comment) {
    const auto end = bytes.last(comment + kEnd);
    if (At<uint32_t>(end, 0) == kEndMark && At<uint16_t>(end, 20) == comment) return end;
  }
  return Damaged("it has no end record, so it is truncated");
}

// The content of the file that a header of the directory describes.
absl::StatusOr<std::span<const uint8_t>> Content(std::span<const uint8_t> bytes,
                                                 std::span<const uint8_t> header, const std::string& name) {
  const auto flags = At<uint16_t>(header, 8), method = At<uint16_t>(header, 10);
  const auto packed = At<uint32_t>(header, 20), size = At<uint32_t>(header, 24);
  const auto local = At<uint32_t>(header, 42);
  if (method != 0 || (flags & 1) != 0)
    return Unimplemented(name, " is compressed or encrypted, which PyTorch does not write");
  if (packed == kIn64Bits || local == kIn64Bits)
    return Unimplemented("the archive has 4 GiB or more, which this build does not read");
  if (packed != size) return Damaged("a stored file has two sizes");
  if (local > bytes.size() || bytes.size() - local < kLocalHeader) return Damaged("a file begins outside it");
  const auto rest = bytes.subspan(local);
  if (At<uint32_t>(rest, 0) != kLocalMark) return Damaged("a file does not begin with its header");
  // Alignment lengthens the header in front of the file.
  const size_t skip = kLocalHeader + At<uint16_t>(rest, 26) + At<uint16_t>(rest, 28);
  if (skip > rest.size() || size > rest.size() - skip) return Damaged("a file ends outside it");
  const auto content = rest.subspan(skip, size);
  if (crc32_z(0, content.data(), content.size()) != At<uint32_t>(header, 16)) {
    return DataLoss("the checksum of ", name,
                    " is wrong: damaged, or saved after torch.serialization.set_crc32_options(False)");
  }
  return content;
}

}  // namespace

absl::StatusOr<ZipRecords> ListZip(std::span<const uint8_t> bytes) {
  ASSIGN_OR_RETURN(const std::span<const uint8_t> end, FindEnd(bytes));
  const auto count = At<uint16_t>(end, 10);
  const auto offset = At<uint32_t>(end, 16);
  if (At<uint16_t>(end, 4) != 0 || At<uint16_t>(end, 8) != count || offset == kIn64Bits)
    return Unimplemented("the zip archive is in parts or has 4 GiB or more, which this build does not read");
  if (offset > bytes.size()) return Damaged("its directory is outside it");
  auto directory = bytes.subspan(offset);
  ZipRecords records;
  for (uint16_t i = 0; i < count; ++i) {
    if (directory.size() < kCentralHeader || At<uint32_t>(directory, 0) != kCentralMark)
      return Damaged("its directory is not whole");
    const size_t name_bytes = At<uint16_t>(directory, 28);
    const size_t header_bytes =
        kCentralHeader + name_bytes + At<uint16_t>(directory, 30) + At<uint16_t>(directory, 32);
    if (header_bytes > directory.size()) return Damaged("its directory is not whole");
    const std::string name(reinterpret_cast<const char*>(directory.data()) + kCentralHeader, name_bytes);
    ASSIGN_OR_RETURN(const std::span<const uint8_t> content, Content(bytes, directory, name));
    if (!records.emplace(name, content).second) return Damaged("two files have one name");
    directory = directory.subspan(header_bytes);
  }
  return records;
}

}  // namespace deeper
