#include "data/io/checksum.h"

#include <fcntl.h>
#include <isa-l/crc.h>
#include <xxhash.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_format.h"
#include "data/io/file.h"
#include "kernels/base/check.h"
#include "kernels/base/status.h"

namespace deeper {

uint32_t Crc32c(const void* data, size_t bytes, uint32_t crc) {
  // ISA-L takes an int length and a mutable pointer, but only reads from it.
  auto* at = static_cast<unsigned char*>(const_cast<void*>(data));
  crc = ~crc;
  while (bytes > 0) {
    const size_t piece = std::min(bytes, size_t{1} << 30);
    crc = crc32_iscsi(at, static_cast<int>(piece), crc);
    at += piece;
    bytes -= piece;
  }
  return ~crc;
}

std::string Hash128::Hex() const {
  return absl::StrFormat("%016x%016x", high, low);
}

Hash128 Xxh3(const void* data, size_t bytes) {
  const XXH128_hash_t hash = XXH3_128bits(data, bytes);
  return {hash.high64, hash.low64};
}

absl::StatusOr<Hash128> Xxh3OfFile(const std::string& path) {
  ASSIGN_OR_RETURN(File file, File::Open(path, O_RDONLY));
  ASSIGN_OR_RETURN(uint64_t size, file.Size());
  std::vector<uint8_t> piece(std::min(size, uint64_t{1} << 20));
  Xxh3Stream hash;
  for (uint64_t at = 0; at < size; at += piece.size()) {
    piece.resize(std::min<uint64_t>(piece.size(), size - at));
    RETURN_IF_ERROR(file.ReadAt(at, piece.data(), piece.size()));
    hash.Add(piece.data(), piece.size());
  }
  return hash.Finish();
}

Xxh3Stream::Xxh3Stream() : state_(XXH3_createState()) {
  DEEPER_CHECK(state_ != nullptr);
  XXH3_128bits_reset(static_cast<XXH3_state_t*>(state_.get()));
}

void Xxh3Stream::Add(const void* data, size_t bytes) {
  XXH3_128bits_update(static_cast<XXH3_state_t*>(state_.get()), data, bytes);
}

Hash128 Xxh3Stream::Finish() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(static_cast<const XXH3_state_t*>(state_.get()));
  return {hash.high64, hash.low64};
}

void Xxh3Stream::Free::operator()(void* state) const {
  XXH3_freeState(static_cast<XXH3_state_t*>(state));
}

}  // namespace deeper
