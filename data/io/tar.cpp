#include "data/io/tar.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/base/status.h"
#include "kernels/base/tensor.h"

namespace deeper {
namespace {

constexpr uint64_t kBlock = 512;
constexpr uint64_t kMaxExtensionBytes = 1 << 20;  // of a long name or of pax records
constexpr size_t kChecksumAt = 148, kChecksumBytes = 8;

// One header block.
struct Header {
  std::array<char, kBlock> block;

  // The text before the first zero byte.
  absl::string_view Text(size_t at, size_t bytes) const {
    const absl::string_view field(&block[at], bytes);
    return field.substr(0, field.find('\0'));
  }
  char type() const { return block[156]; }
  std::string Name() const {
    const absl::string_view name = Text(0, 100), prefix = Text(345, 155);
    // GNU's own format has the magic "ustar " and uses the prefix field for other data.
    const bool ustar = absl::string_view(&block[257], 6) == absl::string_view("ustar\0", 6);
    return ustar && !prefix.empty() ? absl::StrCat(prefix, "/", name) : std::string(name);
  }
  bool IsZero() const {
    return std::all_of(block.begin(), block.end(), [](char byte) { return byte == 0; });
  }
};

// Octal digits between spaces and zeros. If the first bit is set, a big-endian number.
std::optional<uint64_t> ParseNumber(absl::string_view field) {
  uint64_t value = 0;
  if (static_cast<uint8_t>(field[0]) & 0x80) {
    for (size_t i = 0; i < field.size(); ++i) {
      const auto byte = static_cast<uint8_t>(i == 0 ? field[i] & 0x7f : field[i]);
      if (value >> 56 != 0) return std::nullopt;
      value = value << 8 | byte;
    }
    return value;
  }
  field.remove_prefix(std::min(field.find_first_not_of(' '), field.size()));
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value, 8);
  const absl::string_view rest(end, static_cast<size_t>(field.data() + field.size() - end));
  if (error != std::errc() || rest.find_first_not_of(absl::string_view(" \0", 2)) != rest.npos)
    return std::nullopt;
  return value;
}

bool ChecksumIsRight(const Header& header) {
  uint64_t sum = kChecksumBytes * ' ';
  for (size_t i = 0; i < kBlock; ++i) {
    if (i < kChecksumAt || i >= kChecksumAt + kChecksumBytes) sum += static_cast<uint8_t>(header.block[i]);
  }
  return ParseNumber({&header.block[kChecksumAt], kChecksumBytes}) == sum;
}

// What extension members set for the next member.
struct Extension {
  std::optional<std::string> name;
  std::optional<uint64_t> bytes;
};

// Records "<length> <key>=<value>\n"; the length includes the whole record.
absl::Status ParsePax(absl::string_view records, Extension* extension) {
  while (!records.empty()) {
    size_t length = 0;
    const size_t space = records.find(' ');
    if (space == records.npos || !absl::SimpleAtoi(records.substr(0, space), &length) ||
        length > records.size() || length < space + 2 || records[length - 1] != '\n') {
      return DataLoss("damaged pax records");
    }
    const absl::string_view record = records.substr(space + 1, length - space - 2);
    const size_t equals = record.find('=');
    if (equals == record.npos) return DataLoss("damaged pax records");
    const absl::string_view key = record.substr(0, equals), value = record.substr(equals + 1);
    uint64_t bytes = 0;
    if (key == "path") {
      extension->name = std::string(value);
    } else if (key == "size") {
      if (!absl::SimpleAtoi(value, &bytes)) return DataLoss("damaged pax records");
      extension->bytes = bytes;
    } else if (absl::StartsWith(key, "GNU.sparse.")) {
      return Unimplemented("a sparse file; create the archive without --sparse");
    }
    records.remove_prefix(length);
  }
  return absl::OkStatus();
}

class TarLister {
 public:
  TarLister(const ReadAt& read, uint64_t begin, uint64_t end) : read_(read), at_(begin), end_(end) {}

  absl::StatusOr<std::vector<TarMember>> List() {
    for (Header header;;) {
      RETURN_IF_ERROR(Read(header.block.data(), kBlock));
      if (header.IsZero()) return std::move(members_);
      RETURN_IF_ERROR(Add(header));
    }
  }

 private:
  // Reads and advances. An archive ends with two zero blocks, so any truncation is detected.
  absl::Status Read(void* data, uint64_t bytes) {
    if (bytes > end_ - at_) return DataLoss("the tar archive is truncated at byte ", at_);
    absl::Status read = read_(at_, data, bytes);
    at_ += bytes;
    return read;
  }

  absl::Status Add(const Header& header) {
    if (!ChecksumIsRight(header)) {
      if (absl::string_view(header.block.data(), 2) == "\x1f\x8b")
        return InvalidArgument("compressed with gzip; decompress it with gunzip");
      return DataLoss("missing or damaged tar header at byte ", at_);
    }
    const std::optional<uint64_t> size = ParseNumber({&header.block[124], 12});
    if (!size) return DataLoss("tar header with a damaged size at byte ", at_);
    const absl::string_view extensions = "xgLK";
    if (extensions.find(header.type()) != extensions.npos) return Extend(header.type(), *size);
    const Extension extension = std::exchange(extension_, {});
    const TarMember member{extension.name.value_or(header.Name()), at_, extension.bytes.value_or(*size)};
    if (RoundUp(member.bytes, kBlock) < member.bytes || RoundUp(member.bytes, kBlock) > end_ - at_) {
      return DataLoss("the tar archive is truncated: ", member.name, " at byte ", at_);
    }
    const absl::string_view files("07\0", 3);
    if (files.find(header.type()) != files.npos) {
      members_.push_back(member);
    } else if (header.type() != '5') {  // a folder
      return Unimplemented(member.name, " is not a regular file (tar type ",
                           static_cast<int>(static_cast<uint8_t>(header.type())), "), at byte ", at_,
                           "; create the archive with --hard-dereference --dereference");
    }
    at_ += RoundUp(member.bytes, kBlock);
    return absl::OkStatus();
  }

  absl::Status Extend(char type, uint64_t bytes) {
    if (bytes > kMaxExtensionBytes) return DataLoss("tar extension too long at byte ", at_);
    std::string content(RoundUp(bytes, kBlock), '\0');
    RETURN_IF_ERROR(Read(content.data(), content.size()));
    content.resize(bytes);
    if (type == 'L') extension_.name = content.substr(0, content.find('\0'));
    return type == 'x' ? ParsePax(content, &extension_) : absl::OkStatus();
  }

  const ReadAt& read_;
  uint64_t at_, end_;
  Extension extension_;
  std::vector<TarMember> members_;
};

}  // namespace

absl::StatusOr<std::vector<TarMember>> ListTar(const ReadAt& read, uint64_t begin, uint64_t end) {
  return TarLister(read, begin, end).List();
}

}  // namespace deeper
