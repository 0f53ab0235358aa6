#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "data/load/dataset.h"
#include "data/load/synthetic.h"

namespace deeper {
namespace {

Image Read(const Dataset& dataset, int64_t index) {
  Image image;
  EXPECT_TRUE(dataset.Read(index, &image).ok());
  return image;
}

double SquaredDistance(const Image& a, const Image& b) {
  double sum = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) sum += std::pow(double{1} * a.pixels[i] - b.pixels[i], 2);
  return sum;
}

SyntheticOptions Small(uint64_t seed) {
  return {.samples = 500, .height = 24, .width = 32, .classes = 10, .seed = seed};
}

TEST(Synthetic, DescribesItself) {
  const auto dataset = MakeSyntheticDataset(Small(1));
  EXPECT_EQ(dataset->info().samples, 500);
  EXPECT_EQ(dataset->info().classes.size(), 10u);
  const Image image = Read(*dataset, 3);
  EXPECT_EQ(image.height, 24);
  EXPECT_EQ(image.width, 32);
  EXPECT_EQ(image.channels, 3);
  EXPECT_EQ(image.pixels.size(), 24u * 32 * 3);
  EXPECT_NE(dataset->info().uuid, MakeSyntheticDataset(Small(2))->info().uuid);
  EXPECT_EQ(dataset->info().uuid, MakeSyntheticDataset(Small(1))->info().uuid);
}

TEST(Synthetic, IsDeterministicAndNeverRepeatsAnImage) {
  const auto dataset = MakeSyntheticDataset(Small(1)), again = MakeSyntheticDataset(Small(1));
  EXPECT_EQ(Read(*dataset, 7).pixels, Read(*again, 7).pixels);
  EXPECT_NE(Read(*dataset, 7).pixels, Read(*dataset, 17).pixels);
  EXPECT_NE(Read(*dataset, 7).pixels, Read(*MakeSyntheticDataset(Small(2)), 7).pixels);
}

// Classifies by the nearest neighbour from another seed, as a validation split requires.
TEST(Synthetic, ClassesCanBeToldApartAcrossSeeds) {
  const auto train = MakeSyntheticDataset(Small(1)), val = MakeSyntheticDataset(Small(2));
  for (int64_t i = 0; i < 50; ++i) {
    double nearest = std::numeric_limits<double>::infinity();
    int32_t label = -1;
    for (int64_t j = 100; j < 110; ++j) {
      const double distance = SquaredDistance(Read(*val, i), Read(*train, j));
      if (distance < nearest) {
        nearest = distance;
        label = train->label(j);
      }
    }
    EXPECT_EQ(label, val->label(i));
  }
}

TEST(Synthetic, StatedStatisticsAreThoseOfThePixels) {
  for (const int channels : {1, 3}) {
    const auto dataset =
        MakeSyntheticDataset({.samples = 1000, .channels = channels, .height = 16, .width = 16});
    ASSERT_EQ(dataset->info().stats.mean.size(), static_cast<size_t>(channels));
    double sum = 0, squares = 0, count = 0;
    for (int64_t i = 0; i < 1000; ++i) {
      for (const uint8_t p : Read(*dataset, i).pixels) {
        sum += p / 255.0;
        squares += p / 255.0 * p / 255.0;
        ++count;
      }
    }
    EXPECT_NEAR(sum / count, dataset->info().stats.mean[0], 0.01);
    EXPECT_NEAR(std::sqrt(squares / count - std::pow(sum / count, 2)), dataset->info().stats.stddev[0], 0.01);
  }
}

}  // namespace
}  // namespace deeper
