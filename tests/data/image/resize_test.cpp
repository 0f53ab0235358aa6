#include "data/image/resize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/base/rng.h"

namespace deeper {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;

Image RandomImage(int height, int width, int channels) {
  Image image{height, width, channels, std::vector<uint8_t>(size_t{1} * height * width * channels)};
  Rng rng(3, 0, 0, 0);
  for (uint8_t& p : image.pixels) p = static_cast<uint8_t>(rng.NextBelow(256));
  return image;
}

// Bilinear interpolation in its plain form, clamped at the edges, 0 outside the image.
float Interpolate(const Image& image, float x, float y, int channel) {
  if (x < -0.5f || y < -0.5f || x >= image.width - 0.5f || y >= image.height - 0.5f) return 0;
  x = std::clamp(x, 0.0f, static_cast<float>(image.width - 1));
  y = std::clamp(y, 0.0f, static_cast<float>(image.height - 1));
  const int left = static_cast<int>(x), top = static_cast<int>(y);
  const auto at = [&](int row, int column) {
    row = std::min(row, image.height - 1);
    column = std::min(column, image.width - 1);
    return static_cast<float>(image.pixels[(row * image.width + column) * image.channels + channel]);
  };
  const float fx = x - left, fy = y - top;
  return (1 - fy) * ((1 - fx) * at(top, left) + fx * at(top, left + 1)) +
         fy * ((1 - fx) * at(top + 1, left) + fx * at(top + 1, left + 1));
}

void ExpectInterpolated(const Image& image, const Window& w, int height, int width) {
  const std::vector<PixelScale> scales(image.channels);
  std::vector<float> out(size_t{1} * image.channels * height * width, -1.0f);
  SampleImage(image, {w}, scales.data(), image.channels, height, width, out.data());
  for (int c = 0; c < image.channels; ++c) {
    for (int i = 0; i < height; ++i) {
      for (int j = 0; j < width; ++j) {
        const int column = w.flip ? width - 1 - j : j;
        const float x = w.x + (column + 0.5f) * w.width / width - 0.5f,
                    y = w.y + (i + 0.5f) * w.height / height - 0.5f;
        ASSERT_NEAR(out[(c * height + i) * width + j], Interpolate(image, x, y, c), 0.02f)
            << "channel " << c << " row " << i << " column " << j;
      }
    }
  }
}

// The whole of `src`.
Image ResizeBilinear(const Image& src, int height, int width, bool antialias) {
  const Window whole{0, 0, static_cast<float>(src.width), static_cast<float>(src.height)};
  return ResizeWindow(src, whole, antialias ? Filter::kAntialias : Filter::kBilinear, height, width);
}

TEST(ResizeBilinear, EnlargesAtHalfPixelCentres) {
  EXPECT_THAT(ResizeBilinear({1, 2, 1, {0, 100}}, 1, 4, false).pixels, ElementsAre(0, 25, 75, 100));
  EXPECT_THAT(ResizeBilinear({2, 1, 1, {0, 100}}, 4, 1, false).pixels, ElementsAre(0, 25, 75, 100));
}

TEST(ResizeBilinear, ShrinksWithTwoTaps) {
  EXPECT_THAT(ResizeBilinear({1, 4, 1, {0, 10, 20, 30}}, 1, 2, false).pixels, ElementsAre(5, 25));
  EXPECT_THAT(ResizeBilinear({1, 6, 1, {0, 1, 99, 99, 4, 5}}, 1, 2, false).pixels, ElementsAre(1, 4));
}

// Radius 2: weights 3/4, 3/4, 1/4 of the pixels that exist, over their sum.
TEST(ResizeBilinear, AntialiasWidensTheTriangleWhenShrinking) {
  EXPECT_THAT(ResizeBilinear({1, 4, 1, {0, 10, 20, 30}}, 1, 2, true).pixels, ElementsAre(7, 23));
  EXPECT_THAT(ResizeBilinear({1, 2, 1, {0, 100}}, 1, 4, true).pixels, ElementsAre(0, 25, 75, 100));
}

TEST(ResizeBilinear, KeepsChannelsApart) {
  const Image image = ResizeBilinear({1, 2, 3, {0, 100, 200, 40, 180, 0}}, 1, 4, false);
  EXPECT_EQ(image.height, 1);
  EXPECT_EQ(image.width, 4);
  EXPECT_EQ(image.channels, 3);
  EXPECT_THAT(image.pixels, ElementsAre(0, 100, 200, 10, 120, 150, 30, 160, 50, 40, 180, 0));
}

TEST(ResizeBilinear, SameSizeIsExact) {
  const Image image = RandomImage(9, 7, 3);
  EXPECT_EQ(ResizeBilinear(image, 9, 7, false).pixels, image.pixels);
  EXPECT_EQ(ResizeBilinear(image, 9, 7, true).pixels, image.pixels);
}

TEST(ResizeBilinear, OfOnePixelIsConstant) {
  EXPECT_THAT(ResizeBilinear({1, 1, 1, {77}}, 2, 2, false).pixels, ElementsAre(77, 77, 77, 77));
}

TEST(SampleImage, InterpolatesAnyWindow) {
  for (const int channels : {1, 3}) {
    const Image image = RandomImage(17, 23, channels);
    for (const bool flip : {false, true}) {
      ExpectInterpolated(image, {0, 0, 23, 17, flip}, 8, 40);
      ExpectInterpolated(image, {3.25f, 2.5f, 11, 9.75f, flip}, 13, 6);
      ExpectInterpolated(image, {-4.3f, -2.6f, 33, 25, flip}, 20, 20);
      ExpectInterpolated(image, {22, 16, 1, 1, flip}, 3, 3);
      ExpectInterpolated(image, {40, 0, 10.5f, 17, flip}, 4, 4);
    }
  }
}

TEST(SampleImage, CopiesWindowsOfWholePixels) {
  for (const int channels : {1, 3}) {
    const Image image = RandomImage(12, 10, channels);
    for (const bool flip : {false, true}) {
      ExpectInterpolated(image, {0, 0, 10, 12, flip}, 12, 10);
      ExpectInterpolated(image, {2, 3, 5, 4, flip}, 4, 5);
      ExpectInterpolated(image, {-3, 5, 10, 12, flip}, 12, 10);
      ExpectInterpolated(image, {4, -2, 10, 12, flip}, 12, 10);
      ExpectInterpolated(image, {-1, -1, 12, 14, flip}, 14, 12);
      ExpectInterpolated(image, {20, 0, 10, 12, flip}, 12, 10);
      ExpectInterpolated(image, {-20, 0, 10, 12, flip}, 12, 10);
    }
  }
}

TEST(SampleImage, ScalesEachChannelAndLeavesPaddingZero) {
  const Image image{1, 1, 3, {10, 20, 30}};
  const PixelScale scales[] = {{1, 5}, {2, 0}, {0.5f, -1}};
  for (const float width : {2.0f, 2.5f}) {  // with and without interpolation
    std::vector<float> out(6, -1.0f);
    SampleImage(image, {{0, 0, width, 1, false}}, scales, 3, 1, 2, out.data());
    EXPECT_THAT(out, ElementsAre(15, 0, 40, 0, 14, 0));
  }
}

TEST(SampleImage, RepeatsAGreyImage) {
  const Image image{1, 2, 1, {10, 20}};
  const PixelScale scales[] = {{1, 0}, {2, 0}, {3, 0}};
  std::vector<float> out(6);
  SampleImage(image, {{0, 0, 2, 1, false}}, scales, 3, 1, 2, out.data());
  EXPECT_THAT(out, ElementsAre(10, 20, 20, 40, 30, 60));
  SampleImage(image, {{0, 0, 1, 1, false}}, scales, 3, 1, 2, out.data());
  EXPECT_THAT(out, ElementsAreArray({10.0f, 12.5f, 20.0f, 25.0f, 30.0f, 37.5f}));
}

Image PartOf(const Image& image, const PixelRect& rect) {
  Image part{rect.height, rect.width, image.channels, {}, rect.x, rect.y};
  for (int y = 0; y < rect.height; ++y) {
    const auto row = image.pixels.begin() + ((rect.y + y) * image.width + rect.x) * image.channels;
    part.pixels.insert(part.pixels.end(), row, row + rect.width * image.channels);
  }
  return part;
}

TEST(PixelsOf, HoldsAllThatAWindowReads) {
  const Image image = RandomImage(60, 80, 3);
  const std::vector<PixelScale> scales(3);
  for (const Filter filter : {Filter::kBilinear, Filter::kAntialias}) {
    for (const Window& window :
         {Window{0, 0, 80, 60}, Window{11.4f, 7.7f, 31.2f, 22.9f}, Window{70.5f, 50.2f, 9.5f, 9.8f},
          Window{-7.5f, 20, 40, 47.5f}, Window{33, 21, 9, 8, true}}) {
      std::vector<float> whole(3 * 8 * 9), part(3 * 8 * 9, -1.0f);
      SampleImage(image, {window, filter}, scales.data(), 3, 8, 9, whole.data());
      const PixelRect rect = PixelsOf(window, filter, 8, 9, {image.height, image.width});
      Window shifted = window;
      shifted.x -= static_cast<float>(rect.x);
      shifted.y -= static_cast<float>(rect.y);
      SampleImage(PartOf(image, rect), {shifted, filter}, scales.data(), 3, 8, 9, part.data());
      for (size_t i = 0; i < whole.size(); ++i) ASSERT_NEAR(part[i], whole[i], 0.01f) << i;
    }
  }
  const PixelRect rect = PixelsOf({11.4f, 7.7f, 31.2f, 22.9f}, Filter::kBilinear, 8, 9, {60, 80});
  EXPECT_LE(rect.width, 35);
  EXPECT_LE(rect.height, 27);
}

TEST(PixelsOf, IsNeverEmpty) {
  const PixelRect rect = PixelsOf({40, -30, 5, 5}, Filter::kBilinear, 4, 4, {17, 23});
  EXPECT_FALSE(rect.empty());
  EXPECT_TRUE(rect.x >= 0 && rect.y >= 0 && rect.x + rect.width <= 23 && rect.y + rect.height <= 17);
}

TEST(SampleImage, RecoloursBeforeItScales) {
  const ColorMatrix color = {{{0, 1, 0, 5}, {0.5f, 0, 0.5f, 0}, {2, 2, 2, 0}}};
  const PixelScale scales[] = {{1, 0}, {1, -1}, {0.1f, 0}};
  std::vector<float> out(3);
  SampleImage({1, 1, 3, {10, 20, 30}}, {{0, 0, 1, 1}, Filter::kBilinear, color}, scales, 3, 1, 1, out.data());
  EXPECT_THAT(out, ElementsAre(25, 19, 12));
  SampleImage({1, 1, 3, {100, 20, 30}}, {{0, 0, 1, 1}, Filter::kBilinear, color}, scales, 3, 1, 1,
              out.data());
  EXPECT_THAT(out, ElementsAre(25, 64, 25.5f));  // cut off at 255
  SampleImage({1, 1, 1, {10}}, {{0, 0, 1, 1}, Filter::kBilinear, color}, scales, 3, 1, 1, out.data());
  EXPECT_THAT(out, ElementsAre(15, 9, 6));
}

TEST(SampleImage, ErasesARectangleOfTheOutput) {
  const Image image{3, 4, 1, std::vector<uint8_t>(12, 9)};
  const PixelScale scale[] = {{1, 1}};
  std::vector<float> out(12);
  Sampling sampling{{0, 0, 4, 3}};
  sampling.erased = {1, 1, 2, 2};
  SampleImage(image, sampling, scale, 1, 3, 4, out.data());
  EXPECT_THAT(out, ElementsAre(10, 10, 10, 10, 10, 0, 0, 10, 10, 0, 0, 10));
}

TEST(MixSamples, EachTakesTheOthersShare) {
  std::vector<float> a = {0, 1, 2, 3}, b = {10, 10, 10, 10};
  MixSamples({0.25f, {}}, 1, 2, 2, a.data(), b.data());
  EXPECT_THAT(a, ElementsAre(2.5f, 3.25f, 4, 4.75f));
  EXPECT_THAT(b, ElementsAre(7.5f, 7.75f, 8, 8.25f));
}

TEST(MixSamples, ExchangesARectangle) {
  std::vector<float> a = {0, 1, 2, 3, 4, 5}, b = {10, 11, 12, 13, 14, 15};
  MixSamples({1 / 3.0f, {1, 0, 1, 2}}, 1, 2, 3, a.data(), b.data());
  EXPECT_THAT(a, ElementsAre(0, 11, 2, 3, 14, 5));
  EXPECT_THAT(b, ElementsAre(10, 1, 12, 13, 4, 15));
}

}  // namespace
}  // namespace deeper
