#include "data/image/image_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "kernels/base/rng.h"
#include "tests/data/test_images.h"

namespace deeper {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Image Decode(const Bytes& file, int channels) {
  Image image;
  const absl::Status status = DecodeImage(file, channels, &image);
  EXPECT_TRUE(status.ok()) << status;
  return image;
}

void ExpectNear(const Image& got, const Image& want, int tolerance) {
  ASSERT_EQ(got.height, want.height);
  ASSERT_EQ(got.width, want.width);
  ASSERT_EQ(got.channels, want.channels);
  ASSERT_EQ(got.pixels.size(), want.pixels.size());
  int worst = 0;
  for (size_t i = 0; i < got.pixels.size(); ++i)
    worst = std::max(worst, std::abs(got.pixels[i] - want.pixels[i]));
  EXPECT_LE(worst, tolerance);
}

TEST(ImageCodec, JpegRoundTrip) {
  for (const int channels : {1, 3}) {
    for (const auto& [height, width] : {std::pair{16, 24}, {1, 1}, {33, 500}, {500, 33}}) {
      const Image image = MakeImage(height, width, channels);
      ExpectNear(Decode(EncodeJpeg(image, 95), channels), image, 24);
    }
  }
}

TEST(ImageCodec, PngRoundTripIsExact) {
  for (const int channels : {1, 3}) {
    for (const auto& [height, width] : {std::pair{16, 24}, {1, 1}, {500, 33}}) {
      const Image image = MakeImage(height, width, channels);
      EXPECT_EQ(Decode(PngFile(image), channels).pixels, image.pixels);
    }
  }
}

TEST(ImageCodec, GreyBecomesRgbAndRgbGrey) {
  const Image grey{1, 2, 1, {10, 200}};
  EXPECT_THAT(Decode(PngFile(grey), 3).pixels, ElementsAre(10, 10, 10, 200, 200, 200));
  const Image as_rgb = Decode(EncodeJpeg(Image{8, 8, 1, Bytes(64, 90)}, 95), 3);
  EXPECT_EQ(as_rgb.pixels.size(), 192u);
  EXPECT_THAT(as_rgb.pixels, Each(90));
}

// Of (200, 30, 40), Pillow's grey is 82. libpng's would be 81, and 117 where the file states a gamma.
TEST(ImageCodec, GreyIsTheSameSumWhateverTheFormat) {
  Image red{8, 8, 3, {}};
  for (int i = 0; i < 64; ++i) red.pixels.insert(red.pixels.end(), {200, 30, 40});
  EXPECT_THAT(Decode(PngFile(red), 1).pixels, Each(82));
  for (const double gamma : {0.45455, 1.0, 2.0}) {
    EXPECT_THAT(
        Decode(PngFile(8, 8, PNG_COLOR_TYPE_RGB, 8, red.pixels, {}, PNG_INTERLACE_ADAM7, gamma), 1).pixels,
        Each(82));
  }
  EXPECT_THAT(Decode(PngFile(8, 8, PNG_COLOR_TYPE_PALETTE, 8, Bytes(64, 1), {{}, {200, 30, 40}}), 1).pixels,
              Each(82));
  EXPECT_THAT(Decode(JpegFile(red, {}, 100), 1).pixels,
              Each(::testing::AllOf(::testing::Ge(81), ::testing::Le(83))));
  Bytes ink;
  for (int i = 0; i < 64; ++i) ink.insert(ink.end(), {200, 30, 40, 255});
  EXPECT_THAT(Decode(CmykJpeg(8, 8, ink, JCS_CMYK, false), 1).pixels, Each(82));
}

// Every pixel of a colour JPEG: the sum of what the same file has as RGB, not its luma, which is before
// rounding and cutting off.
TEST(ImageCodec, GreyOfAJpegIsTheSumOfItsRgb) {
  const Bytes file = JpegFile(NoisyImage(40, 50, 3), {2, 2}, 30);
  const Image rgb = Decode(file, 3);
  Bytes want;
  for (size_t i = 0; i < rgb.pixels.size(); i += 3) {
    const uint8_t* p = &rgb.pixels[i];
    want.push_back(static_cast<uint8_t>((19595 * p[0] + 38470 * p[1] + 7471 * p[2] + 32768) / 65536));
  }
  EXPECT_EQ(Decode(file, 1).pixels, want);
}

TEST(ImageCodec, PngVariantsBecomePlainRgb) {
  const Bytes wide = {0x12, 0x34, 0xFF, 0xFF, 0x80, 0x80};
  EXPECT_THAT(Decode(PngFile(1, 1, PNG_COLOR_TYPE_RGB, 16, wide), 3).pixels, ElementsAre(0x12, 255, 0x80));
  EXPECT_THAT(Decode(PngFile(1, 1, PNG_COLOR_TYPE_RGB_ALPHA, 8, {7, 8, 9, 0}), 3).pixels,
              ElementsAre(7, 8, 9));
  EXPECT_THAT(Decode(PngFile(1, 2, PNG_COLOR_TYPE_PALETTE, 8, {1, 0}, {{1, 2, 3}, {4, 5, 6}}), 3).pixels,
              ElementsAre(4, 5, 6, 1, 2, 3));
  const Image image = MakeImage(9, 13, 3);
  EXPECT_EQ(Decode(PngFile(9, 13, PNG_COLOR_TYPE_RGB, 8, image.pixels, {}, PNG_INTERLACE_ADAM7), 3).pixels,
            image.pixels);
}

// Ink C=255 M=0 Y=0 K=51: no red, green and blue at 255 - 51. Files hold 255 minus each, with and without
// Adobe's marker.
TEST(ImageCodec, CmykAndYcckBecomeRgb) {
  Bytes inverted;
  for (int i = 0; i < 64; ++i) inverted.insert(inverted.end(), {0, 255, 255, 204});
  Image want{8, 8, 3, {}};
  for (int i = 0; i < 64; ++i) want.pixels.insert(want.pixels.end(), {0, 204, 204});
  ExpectNear(Decode(CmykJpeg(8, 8, inverted, JCS_CMYK, false), 3), want, 3);
  ExpectNear(Decode(CmykJpeg(8, 8, inverted, JCS_CMYK, true), 3), want, 3);
  ExpectNear(Decode(CmykJpeg(8, 8, inverted, JCS_YCCK, true), 3), want, 3);
  ExpectNear(Decode(CmykJpeg(8, 8, inverted, JCS_YCCK, true), 1), Image{8, 8, 1, Bytes(64, 143)}, 3);
}

// Parts of all sizes and places have the same pixels as the whole image.
void ExpectPartsOfTheWhole(const Bytes& file, int channels, int seed) {
  const Image whole = Decode(file, channels);
  Rng rng(static_cast<uint64_t>(seed), 0, 0, 0);
  for (int i = 0; i < 25; ++i) {
    PixelRect part;
    part.width = 1 + static_cast<int>(rng.NextBelow(static_cast<uint32_t>(whole.width)));
    part.height = 1 + static_cast<int>(rng.NextBelow(static_cast<uint32_t>(whole.height)));
    part.x = static_cast<int>(rng.NextBelow(static_cast<uint32_t>(whole.width - part.width + 1)));
    part.y = static_cast<int>(rng.NextBelow(static_cast<uint32_t>(whole.height - part.height + 1)));
    Image image;
    const absl::Status status = DecodePart(
        file, channels,
        [&](ImageSize size) {
          EXPECT_EQ(size.height, whole.height);
          EXPECT_EQ(size.width, whole.width);
          return part;
        },
        &image);
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_TRUE(image.x <= part.x && image.y <= part.y && image.x + image.width >= part.x + part.width &&
                image.y + image.height >= part.y + part.height);
    ASSERT_EQ(image.pixels.size(), size_t{1} * image.height * image.width * channels);
    for (int y = 0; y < image.height; ++y) {
      const auto row = image.pixels.begin() + int64_t{y} * image.width * channels;
      const auto expected = whole.pixels.begin() + (int64_t{image.y + y} * whole.width + image.x) * channels;
      ASSERT_TRUE(std::equal(row, row + int64_t{image.width} * channels, expected))
          << "row " << y << " of " << part.width << " x " << part.height << " at " << part.x << ", " << part.y
          << " of " << whole.width << " x " << whole.height;
    }
  }
}

TEST(ImageCodec, PartsAreTheWholesPixelsForEverySubsampling) {
  int seed = 0;
  for (const auto& [h, v] : {std::pair{1, 1}, {2, 1}, {1, 2}, {2, 2}, {4, 1}, {1, 4}, {4, 2}}) {
    for (const bool progressive : {false, true}) {
      for (const unsigned restart_interval : {0, 3}) {
        for (const int channels : {1, 3}) {
          const Image image = NoisyImage(20 + 37 * seed % 100, 21 + 53 * seed % 110, 3, seed);
          ++seed;
          SCOPED_TRACE(::testing::Message() << h << "x" << v << ", progressive " << progressive);
          ExpectPartsOfTheWhole(JpegFile(image, {h, v, progressive, restart_interval}), channels, seed);
        }
      }
    }
  }
}

TEST(ImageCodec, PartsOfOtherKinds) {
  const Image grey = NoisyImage(61, 45, 1), rgb = NoisyImage(61, 45, 3), cmyk = NoisyImage(61, 45, 4);
  ExpectPartsOfTheWhole(JpegFile(grey, {}), 3, 1);
  ExpectPartsOfTheWhole(CmykJpeg(61, 45, cmyk.pixels, JCS_CMYK, false), 3, 2);
  ExpectPartsOfTheWhole(CmykJpeg(61, 45, cmyk.pixels, JCS_YCCK, true), 1, 3);
  ExpectPartsOfTheWhole(PngFile(rgb), 3, 4);
}

// Detects damage before and inside a part; does not read the file after it.
TEST(ImageCodec, DamageUpToTheEndOfAPartIsAnError) {
  const Bytes file = JpegFile(NoisyImage(200, 40, 3), {2, 2});
  const Bytes first_half(file.begin(), file.begin() + std::ssize(file) / 2);
  const auto decode_rows = [&](int first) {
    Image image;
    return DecodePart(
        first_half, 3,
        [&](ImageSize) {
          return PixelRect{10, first, 20, 20};
        },
        &image);
  };
  EXPECT_TRUE(decode_rows(20).ok());
  EXPECT_EQ(decode_rows(90).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(decode_rows(170).code(), absl::StatusCode::kDataLoss);
}

TEST(ImageCodec, SniffsTheBytes) {
  EXPECT_EQ(SniffImage(PngFile(MakeImage(2, 2, 3))), ImageFormat::kPng);
  EXPECT_EQ(SniffImage(EncodeJpeg(MakeImage(2, 2, 3), 90)), ImageFormat::kJpeg);
  EXPECT_EQ(SniffImage(Bytes{'R', 'I', 'F', 'F', 0, 0, 0, 0, 'W', 'E', 'B', 'P'}), ImageFormat::kWebp);
  EXPECT_EQ(SniffImage(Bytes{'G', 'I', 'F'}), ImageFormat::kUnknown);
  EXPECT_EQ(SniffImage(Bytes{}), ImageFormat::kUnknown);
}

TEST(ImageCodec, HeaderGivesTheSize) {
  for (const Bytes& file : {PngFile(MakeImage(500, 33, 3)), EncodeJpeg(MakeImage(500, 33, 3), 90)}) {
    const absl::StatusOr<ImageSize> size = ReadImageSize(file);
    ASSERT_TRUE(size.ok()) << size.status();
    EXPECT_EQ(size->height, 500);
    EXPECT_EQ(size->width, 33);
  }
}

absl::Status DecodeError(const Bytes& file) {
  Image image;
  return DecodeImage(file, 3, &image);
}

// Unless nothing but the mark of the end is missing.
TEST(ImageCodec, TruncatedFilesAreErrorsWhereverTheyEnd) {
  const Image image = NoisyImage(40, 40, 3);
  const auto check = [](const Bytes& file, size_t end_mark) {
    const Image whole = Decode(file, 3);
    for (size_t size = 8; size < file.size(); ++size) {
      Image read;
      std::string note;
      const Bytes cut(file.begin(), file.begin() + static_cast<ptrdiff_t>(size));
      const absl::Status status = DecodeImage(cut, 3, &read, &note);
      if (size < file.size() - end_mark) {
        EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << size << " of " << file.size();
        EXPECT_THAT(status.message(), HasSubstr("damaged"));
      } else if (status.ok()) {
        EXPECT_EQ(read.pixels, whole.pixels) << size << " of " << file.size();
        EXPECT_NE(note, "");
      }
    }
  };
  check(PngFile(image), 12);
  check(JpegFile(image, {}), 2);
  check(JpegFile(image, {2, 2, false, 3}), 2);
  check(JpegFile(image, {1, 1, true}), 0);
  check(JpegFile(image, {1, 1, false, 0, true}), 0);
}

TEST(ImageCodec, DamagedDataIsAnError) {
  Bytes png = PngFile(MakeImage(40, 40, 3));
  png[png.size() / 2] ^= 4;
  EXPECT_EQ(DecodeError(png).code(), absl::StatusCode::kDataLoss);
  Bytes jpeg = EncodeJpeg(MakeImage(40, 40, 3), 90);
  std::fill(jpeg.end() - 60, jpeg.end() - 20, 0xFF);
  EXPECT_EQ(DecodeError(jpeg).code(), absl::StatusCode::kDataLoss);
}

// What libjpeg warns about although every pixel is there: noted, and the pixels are those of the regular
// file.
TEST(ImageCodec, IrregularHeadersAreNotes) {
  const Bytes regular = EncodeJpeg(MakeImage(40, 40, 3), 90);
  const Image want = Decode(regular, 3);
  const auto find = [&](uint8_t marker) {
    const uint8_t bytes[] = {0xFF, marker};
    return std::search(regular.begin(), regular.end(), std::begin(bytes), std::end(bytes)) - regular.begin();
  };
  Bytes version = regular, spectrum = regular, extra = regular;
  version[static_cast<size_t>(find(0xE0)) + 9] = 0;
  spectrum[static_cast<size_t>(find(0xDA)) + 12] = 0;  // the last coefficient of the scan: 0, not 63
  extra.insert(extra.begin() + find(0xDB), {1, 2, 3});
  for (const auto& [file, text] : {std::pair{version, "unknown JFIF revision number 0.01"},
                                   {spectrum, "Invalid SOS parameters"},
                                   {extra, "3 extraneous bytes before marker 0xdb"},
                                   {regular, ""}}) {
    Image image;
    std::string note = "none";
    EXPECT_TRUE(DecodeImage(file, 3, &image, &note).ok());
    EXPECT_THAT(note, HasSubstr(text));
    EXPECT_EQ(note.empty(), file == regular);
    EXPECT_EQ(image.pixels, want.pixels);
  }
  Bytes after = regular;
  after.insert(after.end() - 2, {1, 2, 3});  // unused data of the scan
  EXPECT_THAT(DecodeError(after).message(), HasSubstr("extraneous bytes before marker 0xd9"));
}

TEST(ImageCodec, OtherFilesAreNoImages) {
  EXPECT_THAT(DecodeError({}).message(), HasSubstr("empty"));
  EXPECT_THAT(DecodeError({'t', 'e', 'x', 't'}).message(), HasSubstr("not a JPEG, PNG or WebP file"));
  EXPECT_THAT(DecodeError({'R', 'I', 'F', 'F', 0, 0, 0, 0, 'W', 'A', 'V', 'E'}).message(),
              HasSubstr("not a"));
  for (const auto& [name, magic] : std::initializer_list<std::pair<const char*, Bytes>>{
           {"GIF", {'G', 'I', 'F', '8', '9', 'a'}},
           {"BMP", {'B', 'M'}},
           {"TIFF", {'I', 'I', '*', 0}},
           {"TIFF", {'M', 'M', 0, '*'}},
           {"AVIF", {0, 0, 0, 28, 'f', 't', 'y', 'p', 'a', 'v', 'i', 'f'}},
           {"HEIC", {0, 0, 0, 28, 'f', 't', 'y', 'p', 'h', 'e', 'i', 'c'}}}) {
    EXPECT_THAT(DecodeError(magic).message(), HasSubstr(std::string("the format is ") + name));
  }
}

// A header that claims 65500 x 65500 pixels is refused before memory is allocated.
TEST(ImageCodec, HugeSizesAreRefusedByTheHeader) {
  Bytes jpeg = EncodeJpeg(MakeImage(8, 8, 3), 90);
  const uint8_t frame[] = {0xFF, 0xC0};
  const auto sof = std::search(jpeg.begin(), jpeg.end(), std::begin(frame), std::end(frame));
  ASSERT_NE(sof, jpeg.end());
  for (const int i : {5, 7}) {
    sof[i] = 65500 >> 8;
    sof[i + 1] = 65500 & 255;
  }
  EXPECT_EQ(DecodeError(jpeg).code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(ReadImageSize(jpeg).status().message(), HasSubstr("65500 x 65500"));
  const Bytes wide = PngFile(1, 70000, PNG_COLOR_TYPE_GRAY, 8, Bytes(70000));
  EXPECT_THAT(DecodeError(wide).message(), HasSubstr("70000 x 1"));
}

}  // namespace
}  // namespace deeper
