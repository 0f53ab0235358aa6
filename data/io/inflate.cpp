#include "data/io/inflate.h"

#include <zlib.h>

#include <algorithm>
#include <limits>

#include "kernels/base/check.h"
#include "kernels/base/status.h"

namespace deeper {

absl::StatusOr<std::vector<uint8_t>> Inflate(std::span<const uint8_t> packed, size_t max_bytes) {
  constexpr int kZlibOrGzip = MAX_WBITS + 32;
  constexpr size_t kPiece = 1 << 18;
  z_stream stream = {};
  if (packed.size() > std::numeric_limits<uInt>::max()) return DataLoss("too large to unpack");
  DEEPER_CHECK(inflateInit2(&stream, kZlibOrGzip) == Z_OK);
  stream.next_in = const_cast<Bytef*>(packed.data());
  stream.avail_in = static_cast<uInt>(packed.size());
  std::vector<uint8_t> out;
  int state = Z_OK;
  while (state == Z_OK && out.size() < max_bytes) {
    const size_t begin = out.size(), piece = std::min(kPiece, max_bytes - begin);
    out.resize(begin + piece);
    stream.next_out = &out[begin];
    stream.avail_out = static_cast<uInt>(piece);
    state = inflate(&stream, Z_NO_FLUSH);
    out.resize(begin + piece - stream.avail_out);
  }
  inflateEnd(&stream);
  if (state != Z_STREAM_END) return DataLoss("damaged, truncated or too large when unpacked");
  return out;
}

}  // namespace deeper
