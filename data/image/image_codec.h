// Image files in memory to pixels and back: JPEG and PNG, told apart by their bytes, never by a name.
//
// Every variant becomes plain 8-bit grey or RGB: CMYK and YCCK (inverted, as Adobe writes them), 16 bits,
// palettes, transparency (dropped), interlacing. Grey of colour is Pillow's weighted sum. Profiles, gamma and
// EXIF orientation are ignored. The pixels are Pillow's; tests/data/image/odd_images_test.py lists what
// differs. A fault that leaves all pixels whole is a note; any other one, a truncated file above all, is an
// error: its pixels would be made up.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/image/image.h"

namespace deeper {

enum class ImageFormat { kUnknown, kJpeg, kPng };
ImageFormat SniffImage(std::span<const uint8_t> bytes);

// Larger images are refused before any memory is taken; the largest of ImageNet has 39 million pixels.
constexpr int64_t kMaxImagePixels = int64_t{1} << 27;
constexpr int kMaxImageSide = 65500;  // JPEG's

// From the header alone. InvalidArgument: neither JPEG nor PNG. DataLoss: damaged. OutOfRange: too large.
absl::StatusOr<ImageSize> ReadImageSize(std::span<const uint8_t> bytes);

// Decodes to `channels` = 1 or 3, into *image (its memory is reused). Errors as ReadImageSize. *note, if
// given, is set to the first irregularity that leaves all pixels whole, such as an unknown version of JFIF;
// else "".
absl::Status DecodeImage(std::span<const uint8_t> bytes, int channels, Image* image,
                         std::string* note = nullptr);

// Decodes what `choose` returns of a JPEG, all of a PNG. The pixels are the same as in the whole image. What
// comes after the part in the file is not looked at, so damage there goes unnoticed.
absl::Status DecodePart(std::span<const uint8_t> bytes, int channels, ChoosePart choose, Image* image);

// JPEG without chroma subsampling of an image within the limits above. The same pixels give the same bytes.
std::vector<uint8_t> EncodeJpeg(const Image& image, int quality);

}  // namespace deeper
