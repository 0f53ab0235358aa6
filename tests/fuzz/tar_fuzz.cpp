// Tar archives. The first byte selects the start within the rest, and whether the checksums of headers are
// corrected, which mutations would not achieve.
#include <algorithm>
#include <cstring>
#include <vector>

#include "data/io/tar.h"
#include "tests/fuzz/fuzz.h"

namespace {

void PutChecksumsRight(std::vector<uint8_t>* bytes) {
  for (size_t at = 0; at + 512 <= bytes->size(); at += 512) {
    uint8_t* block = &(*bytes)[at];
    if (std::all_of(block, block + 512, [](uint8_t byte) { return byte == 0; })) continue;
    std::memset(block + 148, ' ', 8);
    unsigned sum = 0;
    for (size_t i = 0; i < 512; ++i) sum += block[i];
    std::snprintf(reinterpret_cast<char*>(block + 148), 8, "%06o", sum);
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::vector<uint8_t> bytes(data + 1, data + size);
  if (data[0] & 1) PutChecksumsRight(&bytes);
  const uint64_t begin = std::min<uint64_t>(bytes.size(), data[0] & 2 ? 512 : 0), end = bytes.size();
  const deeper::ReadAt read = [&](uint64_t offset, void* out, size_t count) {
    FUZZ_CHECK(offset >= begin && offset <= end && count <= end - offset);
    if (count > 0) std::memcpy(out, &bytes[offset], count);
    return absl::OkStatus();
  };
  const auto members = deeper::ListTar(read, begin, end);
  if (!members.ok()) return 0;
  uint64_t last = begin;
  for (const deeper::TarMember& member : *members) {
    FUZZ_CHECK(member.offset >= last + 512 && member.offset <= end && member.bytes <= end - member.offset);
    last = member.offset + member.bytes;
  }
  return 0;
}
