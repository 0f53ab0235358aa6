// JPEG and PNG files: the size in the header, and the pixels of small images.
#include "data/image/image_codec.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr int64_t kPixels = 1 << 16;
  const std::span<const uint8_t> bytes(data, size);
  const auto header = deeper::ReadImageSize(bytes);
  if (!header.ok()) return 0;
  const int64_t pixels = int64_t{header->height} * header->width;
  FUZZ_CHECK(header->height > 0 && header->height <= deeper::kMaxImageSide);
  FUZZ_CHECK(header->width > 0 && header->width <= deeper::kMaxImageSide);
  FUZZ_CHECK(pixels <= deeper::kMaxImagePixels);
  if (pixels > kPixels) return 0;
  for (const int channels : {1, 3}) {
    deeper::Image image;
    if (!deeper::DecodeImage(bytes, channels, &image).ok()) continue;
    FUZZ_CHECK(image.height == header->height && image.width == header->width && image.channels == channels);
    FUZZ_CHECK(static_cast<int64_t>(image.pixels.size()) == pixels * channels);
  }
  return 0;
}
