// The samples of a loader: augmented, mixed, decoded in parts, normalised, resized, or replaced where they
// are bad.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "data/load/loader.h"
#include "data/load/sample_order.h"
#include "tests/data/load/numbered_images.h"

namespace deeper {
namespace {

using testing::HasSubstr;

using PixelsBySample = std::map<std::pair<uint32_t, uint64_t>, std::vector<float>>;

PixelsBySample AllPixels(const Dataset& dataset, LoaderOptions options) {
  const int64_t elements = int64_t{options.channels} * options.image_size * options.image_size;
  PixelsBySample pixels;
  for (options.rank = 0; options.rank < options.world; ++options.rank) {
    for (const Copy& copy : ReadAll(dataset, options)) {
      for (int64_t i = 0; i < copy.batch.rows; ++i) {
        const auto begin = copy.images.begin() + i * elements;
        pixels[{copy.batch.epoch, copy.samples[i]}].assign(begin, begin + elements);
      }
    }
  }
  return pixels;
}

TEST(Loader, AugmentsASampleAlikeOnAnyNumberOfRanks) {
  const NumberedImages dataset(41, 3);
  LoaderOptions options = SmallOptions();
  options.channels = 3;
  options.augment = Augment::kInception;
  const PixelsBySample without_noise = AllPixels(dataset, options);
  options.pca_noise = 0.1;
  const PixelsBySample alone = AllPixels(dataset, options);
  EXPECT_NE(alone, without_noise);
  EXPECT_EQ(alone.size(), 3u * 41);
  options.world = 3;
  EXPECT_EQ(AllPixels(dataset, options), alone);
}

// Also in packed batches, for a GPU, whose pixels are those of the plain ones before they are scaled.
TEST(Loader, TrivialAugmentIsAlikeOnAnyNumberOfRanksAndWorkers) {
  const NumberedImages dataset(41, 3);
  LoaderOptions options = SmallOptions();
  options.channels = 3;
  options.augment = Augment::kInception;
  options.workers = 1;
  const PixelsBySample plain = AllPixels(dataset, options);
  options.trivial_augment = true;
  const PixelsBySample alone = AllPixels(dataset, options);
  int changed = 0;
  for (const auto& [key, pixels] : alone) changed += pixels != plain.at(key);
  EXPECT_GT(changed, 3 * 41 / 2);
  options.world = 3;
  options.workers = 4;
  EXPECT_EQ(AllPixels(dataset, options), alone);

  options.world = 1;
  options.rank = 0;
  options.packed = true;
  const std::unique_ptr<Loader> loader = Make(dataset, options);
  for (absl::StatusOr<Batch> batch = loader->Next(); batch.ok(); batch = loader->Next()) {
    const auto* const entries = reinterpret_cast<const PackedImage*>(batch->packed);
    for (int64_t i = 0; i < batch->rows; ++i) {
      const std::vector<float>& expected = alone.at({batch->epoch, batch->samples[i]});
      const auto* const pixels = reinterpret_cast<const uint8_t*>(batch->packed + entries[i].offset);
      constexpr size_t kPlane = kSide * kSide;
      for (size_t j = 0; j < 3 * kPlane; ++j) ASSERT_NEAR(pixels[j], expected[j % 3 * kPlane + j / 3], 1e-3f);
    }
  }
}

// The padding of a crop is the mean, which the model sees as 0.
TEST(Loader, TrivialAugmentOfPaddedCrops) {
  const NumberedImages dataset(40);
  LoaderOptions options = SmallOptions();
  options.image_size = 16;
  options.stats = {{100 / 255.0f}, {1 / 255.0f}};
  options.augment = Augment::kCrop;
  const PixelsBySample plain = AllPixels(dataset, options);
  options.trivial_augment = true;
  int same = 0;
  for (const auto& [key, pixels] : AllPixels(dataset, options)) {
    const std::vector<float>& expected = plain.at(key);
    double difference = 0;
    for (size_t i = 0; i < pixels.size(); ++i)
      difference = std::max<double>(difference, std::abs(pixels[i] - expected[i]));
    same += difference < 0.51;
  }
  EXPECT_GT(same, 0) << "the identity, and weak changes";
  EXPECT_LT(same, 60);
}

TEST(Loader, AugmentsDifferentlyEveryEpoch) {
  const NumberedImages dataset(40);
  LoaderOptions options = SmallOptions();
  options.augment = Augment::kFlip;
  const PixelsBySample pixels = AllPixels(dataset, options);
  int changed = 0;
  for (uint64_t i = 0; i < 40; ++i) changed += pixels.at({0, i}) != pixels.at({1, i});
  EXPECT_GT(changed, 8);
  EXPECT_LT(changed, 32);
}

// By (epoch, sample): the sample's pixels, and the share of each class in its loss.
struct Mixed {
  PixelsBySample pixels;
  std::map<std::pair<uint32_t, uint64_t>, std::map<int32_t, float>> targets;
};

Mixed AllMixed(const Dataset& dataset, LoaderOptions options) {
  Mixed mixed;
  mixed.pixels = AllPixels(dataset, options);
  for (options.rank = 0; options.rank < options.world; ++options.rank) {
    const std::unique_ptr<Loader> loader = Make(dataset, options);
    for (absl::StatusOr<Batch> batch = loader->Next(); batch.ok(); batch = loader->Next()) {
      for (int64_t i = 0; i < batch->rows; ++i) {
        std::map<int32_t, float>& target = mixed.targets[{batch->epoch, batch->samples[i]}];
        target[batch->labels[i]] += 1 - batch->partner_weights[i];
        target[batch->partner_labels[i]] += batch->partner_weights[i];
      }
    }
  }
  return mixed;
}

LoaderOptions MixingOptions() {
  LoaderOptions options = SmallOptions();
  options.augment = Augment::kFlip;
  options.mixup = options.cutmix = 1;
  return options;
}

TEST(Loader, MixesAlikeOnAnyNumberOfRanksAndRows) {
  const NumberedImages dataset(41);
  LoaderOptions options = MixingOptions();
  const Mixed alone = AllMixed(dataset, options);
  EXPECT_EQ(alone.pixels.size(), 3u * 41);
  for (const auto& [world, rows, global_batch] : {std::tuple{1, 40, 41}, {2, 3, 13}, {5, 1, 7}, {8, 4, 10}}) {
    options.world = world;
    options.rows = rows;
    options.global_batch = global_batch;
    const Mixed mixed = AllMixed(dataset, options);
    EXPECT_EQ(mixed.pixels, alone.pixels) << world;
    EXPECT_EQ(mixed.targets, alone.targets) << world;
  }
}

// Neighbours in an epoch's order mix with each other, in pixels and targets; the last of an odd number does
// not.
TEST(Loader, MixesNeighbours) {
  const NumberedImages dataset(41);
  LoaderOptions options = MixingOptions();
  const Mixed mixed = AllMixed(dataset, options);
  options.mixup = options.cutmix = 0;
  const PixelsBySample plain = AllPixels(dataset, options);
  for (uint32_t epoch = 0; epoch < options.epochs; ++epoch) {
    const SampleOrder order(options.order, 41, options.seed, epoch);
    for (int64_t position = 0; position < 41; ++position) {
      const auto own = static_cast<uint64_t>(order.At(position));
      const auto partner = position == 40 ? own : static_cast<uint64_t>(order.At(position ^ 1));
      const std::vector<float>& a = plain.at({epoch, own});
      const std::vector<float>& b = plain.at({epoch, partner});
      const std::map<int32_t, float>& target = mixed.targets.at({epoch, own});
      const float weight = own == partner ? 0 : target.at(static_cast<int32_t>(partner));
      double expected = 0, actual = 0;
      for (size_t i = 0; i < a.size(); ++i) {
        const float value = mixed.pixels.at({epoch, own})[i];
        const float low = std::min(a[i], b[i]), high = std::max(a[i], b[i]);
        ASSERT_TRUE(value >= low - 1e-3f && value <= high + 1e-3f);
        expected += (1 - weight) * a[i] + weight * b[i];
        actual += value;
      }
      // All pixels of an image except one are equal, so both ways of mixing give this mean.
      EXPECT_NEAR(actual, expected, 256) << position;
    }
  }
}

// Records the requested parts, and returns no more than them.
class PartsOfImages final : public NumberedImages {
 public:
  using NumberedImages::NumberedImages;
  absl::Status ReadPart(int64_t index, ChoosePart choose, Image* image) const override {
    Image whole;
    if (absl::Status read = Read(index, &whole); !read.ok()) return read;
    const PixelRect part = choose({whole.height, whole.width});
    pixels += int64_t{part.width} * part.height;
    *image = {part.height, part.width, whole.channels, {}, part.x, part.y};
    for (int y = part.y; y < part.y + part.height; ++y) {
      const auto row = whole.pixels.begin() + (y * whole.width + part.x) * whole.channels;
      image->pixels.insert(image->pixels.end(), row, row + part.width * whole.channels);
    }
    return absl::OkStatus();
  }
  mutable std::atomic<int64_t> pixels{0};
};

TEST(Loader, PartsGiveTheSamplesOfWholeImages) {
  const NumberedImages whole(41, 3);
  const PartsOfImages parts(41, 3);
  LoaderOptions options = SmallOptions();
  options.channels = 3;
  for (const Augment augment : {Augment::kCrop, Augment::kInception, Augment::kTorchvision}) {
    options.augment = augment;
    const PixelsBySample expected = AllPixels(whole, options), actual = AllPixels(parts, options);
    ASSERT_EQ(actual.size(), expected.size());
    for (const auto& [key, pixels] : expected) {
      for (size_t i = 0; i < pixels.size(); ++i) ASSERT_NEAR(actual.at(key)[i], pixels[i], 0.01f);
    }
  }
  EXPECT_LT(parts.pixels, parts.reads * kSide * kSide);
}

TEST(Loader, BgrIsRgbReversed) {
  const NumberedImages dataset(10, 3);
  LoaderOptions options = SmallOptions();
  options.channels = 3;
  const PixelsBySample rgb = AllPixels(dataset, options);
  options.bgr = true;
  constexpr size_t kPlane = kSide * kSide;
  for (const auto& [key, bgr] : AllPixels(dataset, options)) {
    for (size_t i = 0; i < 3 * kPlane; ++i)
      ASSERT_NEAR(bgr[i], rgb.at(key)[(2 - i / kPlane) * kPlane + i % kPlane], 1e-3f);
  }
}

TEST(Loader, NormalisesWithTheGivenStatistics) {
  const NumberedImages grey(200);
  LoaderOptions options = SmallOptions();
  options.order = OrderKind::kSequential;
  options.channels = 3;
  options.first_batch = 4;
  options.stats = {{0.5f, 0.25f, 0}, {0.25f, 0.5f, 1}};
  const std::unique_ptr<Loader> loader = Make(grey, options);
  const absl::StatusOr<Batch> batch = loader->Next();
  ASSERT_TRUE(batch.ok());
  ASSERT_EQ(batch->samples[0], 52u);
  constexpr int kPlane = kSide * kSide;
  for (int c = 0; c < 3; ++c) {
    EXPECT_NEAR(batch->images[c * kPlane], (52 / 255.0f - options.stats.mean[c]) / options.stats.stddev[c],
                1e-5f);
    EXPECT_NEAR(batch->images[(c + 1) * kPlane - 1], (1 - options.stats.mean[c]) / options.stats.stddev[c],
                1e-5f);
  }
}

TEST(Loader, ResizesToTheImageSize) {
  const NumberedImages dataset(20);
  LoaderOptions options = SmallOptions();
  options.image_size = 2 * kSide;
  for (const Copy& copy : ReadAll(dataset, options)) {
    for (int64_t i = 0; i < options.rows; ++i) {
      const float* image = &copy.images[i * 4 * kSide * kSide];
      EXPECT_NEAR(image[0], copy.samples[i], 1e-3f);
      EXPECT_NEAR(image[4 * kSide * kSide - 1], 255, 1e-3f);
    }
  }
}

TEST(Loader, ReportsABadSampleAtItsBatchAndStaysThere) {
  NumberedImages dataset(40);
  dataset.bad = {17, 18, 30};
  LoaderOptions options = SmallOptions();
  options.order = OrderKind::kSequential;
  options.global_batch = 8;
  options.rows = 8;
  for (const int workers : {1, 4}) {
    options.workers = workers;
    const std::unique_ptr<Loader> loader = Make(dataset, options);
    EXPECT_TRUE(loader->Next().ok());
    EXPECT_TRUE(loader->Next().ok());
    const absl::Status status = loader->Next().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()), HasSubstr("sample 17 is broken"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("epoch 0, batch 2, rank 0"));
    EXPECT_EQ(loader->Next().status(), status);
  }
}

TEST(Loader, ASampleThatIsOutOfRangeIsNotTheEnd) {
  NumberedImages dataset(5);
  dataset.bad = {0};
  dataset.bad_code = absl::StatusCode::kOutOfRange;  // as an image that is too large
  const absl::Status status = Make(dataset, SmallOptions())->Next().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("sample 0 is broken"));
}

TEST(Loader, ReplacesBadSamplesAlikeForAnyRanksAndWorkers) {
  NumberedImages dataset(41);
  const std::vector<std::vector<uint64_t>> sound = SamplesOf(dataset, SmallOptions(), 1);
  dataset.bad = {7, 30, 31, 40};
  LoaderOptions options = SmallOptions();
  options.allow_bad = 4;
  for (const int world : {1, 3}) {
    for (options.workers = 1; options.workers <= 4; options.workers += 3) {
      std::vector<std::vector<uint64_t>> expected = sound;
      for (std::vector<uint64_t>& batch : expected) {
        for (uint64_t& sample : batch) {
          if (sample == 7) sample = 8;
          if (sample == 30 || sample == 31) sample = 32;
          if (sample == 40) sample = 0;
        }
      }
      EXPECT_EQ(SamplesOf(dataset, options, world), expected);
    }
  }
}

TEST(Loader, NamesTheBadSamplesAndStopsAtOneTooMany) {
  NumberedImages dataset(40);
  dataset.bad = {7, 30, 31};
  LoaderOptions options = SmallOptions();
  options.order = OrderKind::kSequential;
  options.global_batch = options.rows = 10;
  options.allow_bad = 2;
  options.workers = 1;  // otherwise sample 30 may exceed the limit
  const std::unique_ptr<Loader> loader = Make(dataset, options);
  ASSERT_TRUE(loader->Next().ok());
  EXPECT_EQ(loader->bad_samples().at(7), "sample 7 is broken");
  ASSERT_TRUE(loader->Next().ok());
  ASSERT_TRUE(loader->Next().ok());
  const absl::Status status = loader->Next().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("sample 31 is broken; there are more bad samples than --allow_bad=2"));
}

TEST(Loader, EndsWhereNoSampleCanBeRead) {
  NumberedImages dataset(3);
  dataset.bad = {0, 1, 2};
  LoaderOptions options = SmallOptions();
  options.allow_bad = 100;
  EXPECT_EQ(Make(dataset, options)->Next().status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace deeper
