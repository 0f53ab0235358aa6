// Tar archives. The first byte selects the start within the rest, and whether the checksums of headers are
// corrected, which mutations would not achieve.
#include <algorithm>
#include <cstring>
#include <vector>

#include "data/io/tar.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/tar_checksums.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::vector<uint8_t> bytes(data + 1, data + size);
  if (data[0] & 1) deeper::PutChecksumsRight(&bytes);
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
