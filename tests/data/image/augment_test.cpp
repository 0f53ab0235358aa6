#include "data/image/augment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "data/image/resize.h"
#include "nlohmann/json.hpp"
#include "tests/data/test_images.h"

namespace deeper {
namespace {

constexpr int kDraws = 3000;

Window Draw(Augment augment, int image_size, int height, int width, int sample) {
  return DrawWindow(augment, image_size, height, width, Rng(11, RandomStream("augment"), 2, sample));
}

bool Inside(const Window& w, int height, int width) {
  const float slack = 1e-3f;
  return w.x >= 0 && w.y >= 0 && w.x + w.width <= static_cast<float>(width) + slack &&
         w.y + w.height <= static_cast<float>(height) + slack;
}

TEST(DrawWindow, NoneIsTheWholeImageUnmirrored) {
  for (int i = 0; i < 20; ++i) {
    const Window w = Draw(Augment::kNone, 224, 30, 50, i);
    EXPECT_EQ(w.x, 0);
    EXPECT_EQ(w.y, 0);
    EXPECT_EQ(w.width, 50);
    EXPECT_EQ(w.height, 30);
    EXPECT_FALSE(w.flip);
  }
}

TEST(DrawWindow, MirrorsEverySecondImage) {
  for (const Augment augment : {Augment::kFlip, Augment::kCrop, Augment::kInception}) {
    int flips = 0;
    for (int i = 0; i < kDraws; ++i) flips += Draw(augment, 32, 32, 32, i).flip;
    EXPECT_NEAR(flips, kDraws / 2, 5 * std::sqrt(kDraws / 4.0));
  }
}

TEST(DrawWindow, FlipKeepsTheWholeImage) {
  const Window w = Draw(Augment::kFlip, 224, 30, 50, 0);
  EXPECT_EQ(w.width, 50);
  EXPECT_EQ(w.height, 30);
}

TEST(DrawWindow, CropOfASmallImageShiftsItByWholePixelsIntoThePadding) {
  std::set<std::pair<float, float>> corners;
  for (int i = 0; i < kDraws; ++i) {
    const Window w = Draw(Augment::kCrop, 32, 32, 32, i);
    EXPECT_EQ(w.width, 32);
    EXPECT_EQ(w.height, 32);
    EXPECT_LE(std::abs(w.x), 4);
    EXPECT_LE(std::abs(w.y), 4);
    corners.insert({w.x, w.y});
  }
  EXPECT_EQ(corners.size(), 9 * 9);
}

TEST(DrawWindow, CropOfASmallerImageScalesItUpFirst) {
  float least = 0, most = 0;
  for (int i = 0; i < kDraws; ++i) {
    const Window w = Draw(Augment::kCrop, 32, 16, 16, i);
    EXPECT_EQ(w.width, 16);
    least = std::min(least, w.x);
    most = std::max(most, w.x);
  }
  EXPECT_EQ(least, -2);  // 4 output pixels
  EXPECT_EQ(most, 2);
}

TEST(DrawWindow, CropOfALargeImageIsSevenEighthsOfItsShortSide) {
  for (const auto& [height, width] : {std::pair{256, 256}, {375, 500}, {500, 33}, {1, 500}}) {
    const float side = static_cast<float>(std::min(height, width)) * 7 / 8;
    std::set<float> xs, ys;
    for (int i = 0; i < 500; ++i) {
      const Window w = Draw(Augment::kCrop, 224, height, width, i);
      EXPECT_TRUE(Inside(w, height, width)) << height << "x" << width;
      EXPECT_NEAR(w.width, side, side * 0.005f);
      EXPECT_NEAR(w.height, side, side * 0.005f);
      xs.insert(w.x);
      ys.insert(w.y);
    }
    EXPECT_GT(xs.size(), 30u);
    EXPECT_GT(ys.size(), 30u);
  }
}

TEST(DrawWindow, InceptionAreaAndAspectAreWithinBounds) {
  constexpr int kHeight = 375, kWidth = 500;
  double area_sum = 0, x_sum = 0, log_aspect_sum = 0, least = 1, most = 0;
  for (int i = 0; i < kDraws; ++i) {
    const Window w = Draw(Augment::kInception, 224, kHeight, kWidth, i);
    ASSERT_TRUE(Inside(w, kHeight, kWidth));
    const double area = w.width * w.height / (kHeight * kWidth), aspect = w.width / w.height;
    least = std::min(least, area);
    most = std::max(most, area);
    area_sum += area;
    log_aspect_sum += std::log(aspect);
    if (w.width < kWidth) x_sum += w.x / (kWidth - w.width);
    EXPECT_GE(aspect, 0.75 * 0.98);
    EXPECT_LE(aspect, 4.0 / 3 * 1.02);
  }
  EXPECT_GE(least, 0.08 * 0.98);
  EXPECT_LT(least, 0.09);
  EXPECT_GT(most, 0.95);
  // Means from a separate simulation: windows that do not fit are redrawn, which favours small and wide ones.
  EXPECT_NEAR(area_sum / kDraws, 0.433, 0.02);
  EXPECT_NEAR(log_aspect_sum / kDraws, 0.031, 0.02);
  EXPECT_NEAR(x_sum / kDraws, 0.5, 0.05);
}

TEST(DrawWindow, InceptionFallsBackToTheMiddleOfANarrowImage) {
  const Window w = Draw(Augment::kInception, 224, 10, 1000, 0);
  EXPECT_NEAR(w.width, 10 * 4.0 / 3, 1e-3);
  EXPECT_EQ(w.height, 10);
  EXPECT_NEAR(w.x + w.width / 2, 500, 1e-3);
  EXPECT_EQ(w.y, 0);
}

// Compares with Pillow, which rounds to 8 bits after each pass of a resize (val_presets.py).
TEST(DrawWindow, ValidationPresetsMakePillowsPixels) {
  const nlohmann::json expected = nlohmann::json::parse(std::ifstream(DEEPER_DATA_TESTS "/val_presets.json"));
  const int size = expected["size"], step = expected["step"];
  for (const nlohmann::json& test : expected["cases"]) {
    const std::string preset = test["preset"];
    SCOPED_TRACE(test["preset"].dump() + " " + test["height"].dump() + " x " + test["width"].dump());
    const Augment augment = preset == "bvlc" ? Augment::kBvlc : Augment::kTorchvision;
    const Image image = NoisyImage(test["height"], test["width"], 3);
    const Window window = Draw(augment, size, image.height, image.width, 0);
    const Image made = ResizeWindow(image, window, FilterOf(augment), size, size);
    auto value = test["values"].begin();
    int worst = 0;
    for (int y = 0; y < size; y += step) {
      for (int x = 0; x < size; x += step) {
        for (int c = 0; c < 3; ++c)
          worst = std::max(worst, std::abs(made.pixels[(y * size + x) * 3 + c] - value++->get<int>()));
      }
    }
    EXPECT_EQ(value, test["values"].end());
    EXPECT_LE(worst, 1);
  }
}

Rng Draws(int sample) {
  return Rng(5, RandomStream("test"), 1, sample);
}

TEST(DrawColor, WithoutStrengthNothingChanges) {
  EXPECT_EQ(DrawColor(0, 120, Draws(0)), ColorMatrix{});
}

// Applies brightness, contrast and saturation one after the other; one of their orders must match.
TEST(DrawColor, IsThreeFactorsInSomeOrder) {
  constexpr double kStrength = 0.4;
  constexpr float kGrey = 110, kPixel[3] = {90, 140, 60};
  std::set<int> orders;
  for (int i = 0; i < 200; ++i) {
    Rng rng = Draws(i);
    float factors[3];
    for (float& factor : factors)
      factor = static_cast<float>(1 + kStrength * (2 * double{rng.NextUnit()} - 1));
    const ColorMatrix matrix = DrawColor(kStrength, kGrey, Draws(i));
    std::vector<int> order = {0, 1, 2};
    int number = 0, found = -1;
    do {
      float rgb[3] = {kPixel[0], kPixel[1], kPixel[2]};
      for (const int step : order) {
        const float luma = 0.299f * rgb[0] + 0.587f * rgb[1] + 0.114f * rgb[2];
        const float toward = step == 0 ? 0 : step == 1 ? kGrey : luma;
        for (float& v : rgb) v = toward + factors[step] * (v - toward);
      }
      bool same = true;
      for (int c = 0; c < 3; ++c) {
        const float made = Recolor(matrix.m[c], kPixel[0], kPixel[1], kPixel[2]);
        same = same && std::abs(made - std::clamp(rgb[c], 0.0f, 255.0f)) < 1e-3f;
      }
      if (same) found = number;
      ++number;
    } while (std::next_permutation(order.begin(), order.end()));
    ASSERT_GE(found, 0) << i;
    orders.insert(found);
  }
  EXPECT_EQ(orders.size(), 2u);  // saturation commutes with both
}

TEST(DrawColor, LeavesGreyGrey) {
  for (int i = 0; i < 50; ++i) {
    const ColorMatrix matrix = DrawColor(0.5, 110, Draws(i));
    const float red = Recolor(matrix.m[0], 77, 77, 77);
    EXPECT_NEAR(Recolor(matrix.m[1], 77, 77, 77), red, 1e-3);
    EXPECT_NEAR(Recolor(matrix.m[2], 77, 77, 77), red, 1e-3);
  }
}

// The covariance of the added colours is the one that Krizhevsky et al. measured on ImageNet, times 0.1^2.
TEST(DrawLighting, HasTheCovarianceOfImageNet) {
  EXPECT_EQ(DrawLighting(0, Draws(0)), ColorMatrix{});
  double covariance[3][3] = {}, mean[3] = {};
  for (int i = 0; i < kDraws; ++i) {
    const ColorMatrix matrix = DrawLighting(0.1, Draws(i));
    for (int a = 0; a < 3; ++a) {
      for (int b = 0; b < 3; ++b) {
        ASSERT_EQ(matrix.m[a][b], a == b ? 1 : 0);
        covariance[a][b] += double{matrix.m[a][3]} * double{matrix.m[b][3]} / kDraws;
      }
      mean[a] += double{matrix.m[a][3]} / kDraws;
    }
  }
  const double expected[3][3] = {
      {10.027, 10.133, 10.074}, {10.133, 10.384, 10.422}, {10.074, 10.422, 10.589}};
  for (int a = 0; a < 3; ++a) {
    EXPECT_NEAR(mean[a], 0, 0.3);
    for (int b = 0; b < 3; ++b) EXPECT_NEAR(covariance[a][b], expected[a][b], 0.6) << a << b;
  }
  EXPECT_NEAR(covariance[0][0] - 2 * covariance[0][2] + covariance[2][2], 0.467, 0.05);  // of red minus blue
}

TEST(DrawErased, RectanglesAreWithinBounds) {
  constexpr int kSize = 224;
  int erased = 0;
  double area_sum = 0;
  for (int i = 0; i < kDraws; ++i) {
    const PixelRect rect = DrawErased(0.25, kSize, Draws(i));
    if (rect.empty()) continue;
    ++erased;
    ASSERT_TRUE(rect.x >= 0 && rect.y >= 0 && rect.x + rect.width <= kSize && rect.y + rect.height <= kSize);
    const double area = double{1} * rect.width * rect.height / (kSize * kSize);
    const double aspect = double{1} * rect.height / rect.width;
    ASSERT_TRUE(area > 0.02 * 0.95 && area < 0.33 * 1.05) << area;
    ASSERT_TRUE(aspect > 0.3 * 0.95 && aspect < 3.3 * 1.05) << aspect;
    area_sum += area;
  }
  EXPECT_NEAR(erased, kDraws / 4, 5 * std::sqrt(kDraws * 3 / 16.0));
  EXPECT_NEAR(area_sum / erased, 0.17, 0.02);
  EXPECT_TRUE(DrawErased(0, kSize, Draws(0)).empty());
}

// Beta(alpha, alpha) has mean 1/2 and variance 1 / (4 (2 alpha + 1)).
TEST(DrawMix, MixupWeightsAreBeta) {
  for (const double alpha : {0.05, 0.2, 1.0, 4.0}) {
    double sum = 0, squares = 0;
    for (int i = 0; i < kDraws; ++i) {
      const Mix mix = DrawMix(alpha, 0, 224, Draws(i));
      ASSERT_TRUE(mix.pasted.empty());
      ASSERT_TRUE(mix.weight >= 0 && mix.weight <= 1);
      sum += mix.weight;
      squares += double{mix.weight} * mix.weight;
    }
    const double mean = sum / kDraws, variance = 1 / (4 * (2 * alpha + 1));
    EXPECT_NEAR(mean, 0.5, 5 * std::sqrt(variance / kDraws)) << alpha;
    EXPECT_NEAR(squares / kDraws - mean * mean, variance, 0.1 * variance) << alpha;
  }
}

TEST(DrawMix, CutmixWeighsByArea) {
  constexpr int kSize = 32;
  int cut = 0;
  for (int i = 0; i < kDraws; ++i) {
    const Mix mix = DrawMix(0, 1, kSize, Draws(i));
    const PixelRect& rect = mix.pasted;
    ASSERT_TRUE(rect.x >= 0 && rect.y >= 0 && rect.x + rect.width <= kSize && rect.y + rect.height <= kSize);
    int covered = 0;
    for (int y = 0; y < kSize; ++y) {
      for (int x = 0; x < kSize; ++x) covered += rect.Contains(y, x);
    }
    ASSERT_FLOAT_EQ(mix.weight, static_cast<float>(covered) / (kSize * kSize));
    cut += rect.width != rect.height;
  }
  EXPECT_GT(cut, kDraws / 10);  // at an edge
}

TEST(DrawMix, TakesEitherHalfOfTheTime) {
  int cutmix = 0;
  for (int i = 0; i < kDraws; ++i) cutmix += !DrawMix(1, 1, 224, Draws(i)).pasted.empty();
  EXPECT_NEAR(cutmix, kDraws / 2, 5 * std::sqrt(kDraws / 4.0));
}

}  // namespace
}  // namespace deeper
