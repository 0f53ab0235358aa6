// What ReadWebArchive promises about an archive in memory.
#pragma once

#include <cstring>
#include <span>

#include "data/io/webdataset.h"
#include "tests/fuzz/fuzz.h"

// Whether it could be read.
inline bool CheckWebArchive(std::span<const uint8_t> bytes) {
  const deeper::ReadAt read = [&](uint64_t offset, void* out, size_t count) {
    FUZZ_CHECK(offset <= bytes.size() && count <= bytes.size() - offset);
    if (count > 0) std::memcpy(out, &bytes[offset], count);
    return absl::OkStatus();
  };
  const auto archive = deeper::ReadWebArchive(read, bytes.size());
  if (!archive.ok()) return false;
  for (const deeper::WebSample& sample : archive->samples) {
    FUZZ_CHECK(sample.image.offset >= 512 && sample.image.offset <= bytes.size());
    FUZZ_CHECK(sample.image.bytes <= bytes.size() - sample.image.offset);
    FUZZ_CHECK(!sample.image.name.empty() && !sample.label.empty());
  }
  return true;
}
