// The two checksums of all file formats here: CRC32C per sample, XXH3-128 per array, file and manifest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace deeper {

// CRC-32C (Castagnoli). `crc` continues an earlier call's result.
uint32_t Crc32c(const void* data, size_t bytes, uint32_t crc = 0);

struct Hash128 {
  uint64_t high = 0, low = 0;

  friend bool operator==(const Hash128&, const Hash128&) = default;
  std::string Hex() const;  // 32 digits, as `xxh128sum` prints them
};

Hash128 Xxh3(const void* data, size_t bytes);
absl::StatusOr<Hash128> Xxh3OfFile(const std::string& path);

// XXH3-128 of data that arrives in pieces.
class Xxh3Stream {
 public:
  Xxh3Stream();
  void Add(const void* data, size_t bytes);
  Hash128 Finish() const;

 private:
  struct Free {
    void operator()(void* state) const;
  };
  std::unique_ptr<void, Free> state_;
};

}  // namespace deeper
