#include "data/augment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

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
  // Means of a separate simulation: windows that stick out are redrawn, which favours small and wide ones.
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

}  // namespace
}  // namespace deeper
