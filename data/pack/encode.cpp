#include "data/pack/encode.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <utility>

#include "data/image/image_codec.h"
#include "data/image/resize.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

absl::Status ResizeShortSide(int side, Image* image) {
  const int64_t height = image->height, width = image->width, shorter = std::min(height, width);
  const int64_t new_height = height * side / shorter, new_width = width * side / shorter;
  if (std::max(new_height, new_width) > kMaxImageSide || new_height * new_width > kMaxImagePixels) {
    return OutOfRange("resized, it would have ", new_width, " x ", new_height, " pixels");
  }
  if (shorter != side) {
    const Window whole{0, 0, static_cast<float>(width), static_cast<float>(height)};
    *image = ResizeWindow(*image, whole, Filter::kAntialias, static_cast<int>(new_height),
                          static_cast<int>(new_width));
  }
  return absl::OkStatus();
}

// Whether an image file needs no resizing. A damaged one fails later, when it is decoded.
bool HasSize(std::span<const uint8_t> file, int short_side) {
  if (short_side == 0) return true;
  const absl::StatusOr<ImageSize> size = ReadImageSize(file);
  return size.ok() && std::min(size->height, size->width) == short_side;
}

}  // namespace

void PixelSums::Add(const Image& image) {
  const auto channels = static_cast<size_t>(image.channels);
  pixels += image.pixels.size() / channels;
  for (size_t i = 0; i < image.pixels.size(); i += channels) {
    for (size_t c = 0; c < channels; ++c) {
      const uint64_t value = image.pixels[i + c];
      sum[c] += value;
      squares[c] += value * value;
    }
  }
}

void PixelSums::Add(const PixelSums& other) {
  pixels += other.pixels;
  for (size_t c = 0; c < sum.size(); ++c) {
    sum[c] += other.sum[c];
    squares[c] += other.squares[c];
  }
}

PixelStats PixelSums::Stats(int channels) const {
  PixelStats stats;
  const auto count = static_cast<double>(pixels);
  for (size_t c = 0; c < static_cast<size_t>(channels); ++c) {
    const double mean = static_cast<double>(sum[c]) / count;
    const double variance = static_cast<double>(squares[c]) / count - mean * mean;
    stats.mean.push_back(static_cast<float>(mean / 255));
    // A constant channel has no information; 1 keeps its normalised value finite.
    stats.stddev.push_back(variance > 0 ? static_cast<float>(std::sqrt(variance) / 255) : 1.0f);
  }
  return stats;
}

absl::StatusOr<StoredSample> EncodeSample(const ImageSource& source, int64_t i, const PackOptions& options,
                                          bool decode) {
  ASSIGN_OR_RETURN(SourceSample loaded, source.Load(i));
  const bool keep_file = options.encoding == Encoding::kJpeg &&
                         SniffImage(loaded.file) == ImageFormat::kJpeg &&
                         HasSize(loaded.file, options.resize);
  StoredSample stored;
  Image& image = loaded.image;
  if (decode || !keep_file) {
    if (!loaded.file.empty()) {
      RETURN_IF_ERROR(DecodeImage(loaded.file, source.channels(), &image, &stored.note));
    }
    if (options.resize > 0) {
      RETURN_IF_ERROR(ResizeShortSide(options.resize, &image));
    }
    stored.height = image.height;
    stored.width = image.width;
    stored.sums.Add(image);
  }
  if (keep_file) {
    stored.bytes = std::move(loaded.file);
  } else if (options.encoding == Encoding::kJpeg) {
    stored.bytes = EncodeJpeg(image, options.quality);
    stored.flags = kReencoded;
  } else {
    stored.bytes = std::move(image.pixels);
  }
  return stored;
}

}  // namespace deeper
