// Decodes JPEG, PNG and WebP files, and encodes JPEG, in memory. Detects the format from the bytes, never
// from a name.
//
// Every variant becomes plain 8-bit grey or RGB: CMYK and YCCK (inverted, as Adobe writes them), 16 bits,
// palettes, transparency (dropped), interlacing. Grey of colour is Pillow's weighted sum. Profiles, gamma and
// EXIF orientation are ignored. The pixels are Pillow's; tests/data/image/odd_images_test.py lists what
// differs. A fault that leaves all pixels whole is a note. Any other fault, for example a truncated
// file, is an error, because the decoder would invent the missing pixels.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/image/image.h"

namespace deeper {

enum class ImageFormat { kUnknown, kJpeg, kPng, kWebp };
ImageFormat SniffImage(std::span<const uint8_t> bytes);

// Larger images are refused before memory is allocated. The largest of ImageNet has 39 million pixels.
constexpr int64_t kMaxImagePixels = int64_t{1} << 27;
constexpr int kMaxImageSide = 65500;  // JPEG's

// From the header alone. InvalidArgument: another format. DataLoss: damaged. OutOfRange: too large.
absl::StatusOr<ImageSize> ReadImageSize(std::span<const uint8_t> bytes);

// Decodes to `channels` = 1 or 3, into *image (reuses its memory). Errors as ReadImageSize. *note, if
// given, is set to the first irregularity that leaves all pixels whole, such as an unknown version of JFIF;
// else "".
absl::Status DecodeImage(std::span<const uint8_t> bytes, int channels, Image* image,
                         std::string* note = nullptr);

// Decodes the part of a JPEG that `choose` returns, or all of another image. The pixels equal those of the
// whole image. Does not read the file beyond the part, and so does not detect damage there.
absl::Status DecodePart(std::span<const uint8_t> bytes, int channels, ChoosePart choose, Image* image);

// Encodes an image within the limits above as JPEG without chroma subsampling. The same pixels give the same
// bytes.
std::vector<uint8_t> EncodeJpeg(const Image& image, int quality);

}  // namespace deeper
