#include "data/load/loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/load/sample_order.h"
#include "kernels/base/rng.h"
#include "tests/data/load/numbered_images.h"

namespace deeper {
namespace {

using testing::HasSubstr;

// The micro-batches of all ranks together give each epoch's order, for any number of ranks and rows.
void ExpectOrderOfEpochs(int64_t samples, int64_t global_batch, int64_t rows, int world) {
  const NumberedImages dataset(samples);
  LoaderOptions options = SmallOptions();
  options.global_batch = global_batch;
  options.rows = rows;
  options.world = world;
  std::vector<std::vector<Copy>> ranks;
  for (options.rank = 0; options.rank < world; ++options.rank) ranks.push_back(ReadAll(dataset, options));
  size_t step = 0;
  for (uint32_t epoch = 0; epoch < options.epochs; ++epoch) {
    const SampleOrder order(options.order, samples, options.seed, epoch);
    int64_t position = 0;
    for (int64_t k = 0; k < BatchesPerEpoch(samples, global_batch); ++k) {
      const int micros = ranks[0].at(step).batch.micros;
      const int64_t batch_begin = position;
      for (int rank = 0; rank < world; ++rank) {
        for (int micro = 0; micro < micros; ++micro) {
          const Copy& copy = ranks[rank].at(step + micro);
          const Batch& batch = copy.batch;
          ASSERT_EQ(batch.epoch, epoch);
          ASSERT_EQ(batch.batch, k);
          ASSERT_EQ(batch.micro, micro);
          ASSERT_EQ(batch.micros, micros);
          ASSERT_EQ(batch.global_rows, std::min(global_batch, samples - k * global_batch));
          ASSERT_EQ(batch.last_in_epoch, k + 1 == BatchesPerEpoch(samples, global_batch));
          ASSERT_LE(batch.rows, rows);
          for (int64_t i = 0; i < batch.rows; ++i) {
            ASSERT_EQ(copy.samples[i], static_cast<uint64_t>(order.At(position++)));
            ASSERT_EQ(copy.labels[i], dataset.label(copy.samples[i]));
          }
        }
      }
      ASSERT_EQ(position - batch_begin, ranks[0].at(step).batch.global_rows);
      step += micros;
    }
    ASSERT_EQ(position, samples);
  }
  for (const std::vector<Copy>& rank : ranks) EXPECT_EQ(rank.size(), step);
}

TEST(Loader, ShowsEverySampleOnceAnEpochForAnyNumberOfRanks) {
  for (const int world : {1, 2, 3, 5, 8}) {
    for (const int64_t global_batch : {13, 33}) {
      for (const int64_t rows : {2, 5, 40}) {
        SCOPED_TRACE(absl::StrCat("world ", world, ", global batch ", global_batch, ", rows ", rows));
        ExpectOrderOfEpochs(101, global_batch, rows, world);
      }
    }
  }
}

TEST(Loader, WorksWithFewerSamplesThanRanks) {
  ExpectOrderOfEpochs(3, 13, 4, 8);   // in the data
  ExpectOrderOfEpochs(101, 3, 4, 8);  // in a batch
}

// The batches of all ranks, in the order of their samples, including padding.
std::vector<Copy> SlicesOf(const Dataset& dataset, int world) {
  LoaderOptions options = SmallOptions();
  options.augment = Augment::kInception;
  options.rows = 2;
  options.slices = 8;
  options.world = world;
  std::vector<std::vector<Copy>> ranks;
  for (options.rank = 0; options.rank < world; ++options.rank) ranks.push_back(ReadAll(dataset, options));
  std::vector<Copy> slices;
  const size_t share = static_cast<size_t>(options.slices / world);
  for (size_t step = 0; step < ranks[0].size(); step += share) {
    for (const std::vector<Copy>& rank : ranks) {
      for (size_t i = 0; i < share; ++i) slices.push_back(rank.at(step + i));
    }
  }
  return slices;
}

TEST(Loader, SlicesAreTheSameBatchesOnAnyNumberOfRanks) {
  const NumberedImages dataset(29);  // global batches of 13, 13 and 3, whose slices are partly empty
  const std::vector<Copy> alone = SlicesOf(dataset, 1);
  ASSERT_EQ(alone.size(), 3u * 3 * 8);
  for (const int world : {2, 4, 8}) {
    const std::vector<Copy> together = SlicesOf(dataset, world);
    ASSERT_EQ(together.size(), alone.size());
    for (size_t i = 0; i < alone.size(); ++i) {
      EXPECT_EQ(alone[i].batch.rows, together[i].batch.rows);
      EXPECT_EQ(alone[i].batch.global_rows, together[i].batch.global_rows);
      EXPECT_EQ(alone[i].samples, together[i].samples);
      EXPECT_EQ(alone[i].labels, together[i].labels);
      EXPECT_EQ(alone[i].images, together[i].images);
    }
  }
}

TEST(Loader, PaddingRowsHoldRealSamplesWithoutLabels) {
  const NumberedImages dataset(25);  // global batches of 24 and 1
  LoaderOptions options = SmallOptions();
  options.global_batch = 24;
  options.rows = 7;
  options.world = 3;
  int64_t padding = 0, empty_batches = 0;
  for (options.rank = 0; options.rank < options.world; ++options.rank) {
    for (const Copy& copy : ReadAll(dataset, options)) {
      const SampleOrder order(options.order, 25, options.seed, copy.batch.epoch);
      empty_batches += copy.batch.rows == 0;
      for (int64_t i = 0; i < options.rows; ++i) {
        EXPECT_EQ(copy.images[i * kSide * kSide], copy.samples[i]);
        if (i < copy.batch.rows) continue;
        ++padding;
        EXPECT_EQ(copy.labels[i], -1);
        const uint64_t repeated = copy.batch.rows > 0 ? copy.samples[i % copy.batch.rows]
                                                      : order.At(copy.batch.batch * options.global_batch);
        EXPECT_EQ(copy.samples[i], repeated);
      }
    }
  }
  EXPECT_EQ(empty_batches, 2 * options.epochs);  // the 25th sample goes to one of three ranks
  EXPECT_GT(padding, 0);
}

TEST(Loader, ResumesAtEveryPosition) {
  const NumberedImages dataset(23);
  LoaderOptions options = SmallOptions();
  options.global_batch = 5;
  options.rows = 2;
  options.augment = Augment::kCrop;
  const std::vector<Copy> uninterrupted = ReadAll(dataset, options);
  for (options.first_epoch = 0; options.first_epoch < options.epochs; ++options.first_epoch) {
    for (options.first_batch = 0; options.first_batch <= 5;
         ++options.first_batch) {  // 5: the end of the epoch
      const std::vector<Copy> resumed = ReadAll(dataset, options);
      const auto position = [](const Batch& b) { return b.epoch * 5 + b.batch; };
      const auto first = std::find_if(uninterrupted.begin(), uninterrupted.end(), [&](const Copy& copy) {
        return position(copy.batch) == options.first_epoch * 5 + options.first_batch;
      });
      ASSERT_EQ(static_cast<int64_t>(resumed.size()), uninterrupted.end() - first);
      for (size_t i = 0; i < resumed.size(); ++i) ExpectSame(resumed[i], first[i]);
    }
  }
}

TEST(Loader, WorkersAndPrefetchChangeNothing) {
  const NumberedImages dataset(57);
  LoaderOptions options = SmallOptions();
  options.augment = Augment::kInception;
  options.workers = 1;
  options.prefetch = 1;
  const std::vector<Copy> expected = ReadAll(dataset, options);
  options.workers = 4;
  for (const int prefetch : {1, 2, 5}) {
    options.prefetch = prefetch;
    const std::vector<Copy> batches = ReadAll(dataset, options);
    ASSERT_EQ(batches.size(), expected.size());
    for (size_t i = 0; i < batches.size(); ++i) ExpectSame(batches[i], expected[i]);
  }
}

TEST(Loader, EvaluatesInOrderWithoutAugmentation) {
  const NumberedImages dataset(10);
  LoaderOptions options = SmallOptions();
  options.order = OrderKind::kSequential;
  options.epochs = 1;
  std::vector<uint64_t> seen;
  for (const Copy& copy : ReadAll(dataset, options)) {
    seen.insert(seen.end(), copy.samples.begin(), copy.samples.begin() + copy.batch.rows);
  }
  EXPECT_THAT(seen, testing::ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
}

// The samples that each of three epochs mirrors.
std::vector<std::set<uint64_t>> Mirrored(LoaderOptions options) {
  const NumberedImages dataset(100);
  options.augment = Augment::kFlip;
  std::vector<std::set<uint64_t>> mirrored(options.epochs);
  for (options.rank = 0; options.rank < options.world; ++options.rank) {
    for (const Copy& copy : ReadAll(dataset, options)) {
      for (int64_t row = 0; row < copy.batch.rows; ++row) {
        const float* const last = copy.images.data() + (row + 1) * kSide * kSide - kSide;
        EXPECT_EQ(last[0] == 255, last[kSide - 1] != 255);
        if (last[0] == 255) mirrored[copy.batch.epoch].insert(copy.samples[static_cast<size_t>(row)]);
      }
    }
  }
  return mirrored;
}

TEST(Loader, AlternateFlipsShowEachImageBothWaysInTwoEpochs) {
  LoaderOptions options = SmallOptions();
  options.flip = Flip::kAlternate;
  const auto mirrored = Mirrored(options);
  EXPECT_NEAR(static_cast<double>(mirrored[0].size()), 50, 20);
  for (uint64_t sample = 0; sample < 100; ++sample) {
    EXPECT_NE(mirrored[0].contains(sample), mirrored[1].contains(sample)) << sample;
    EXPECT_EQ(mirrored[0].contains(sample), mirrored[2].contains(sample)) << sample;
  }
  options.world = 3;
  EXPECT_EQ(Mirrored(options), mirrored);
  options.seed = 10;
  EXPECT_NE(Mirrored(options), mirrored);
  options.flip = Flip::kRandom;
  const auto random = Mirrored(options);
  EXPECT_NE(random[0], random[2]);
}

TEST(Loader, MirrorMirrorsAll) {
  const NumberedImages dataset(10);
  LoaderOptions options = SmallOptions();
  options.epochs = 1;
  const std::vector<Copy> plain = ReadAll(dataset, options);
  options.mirror = true;
  const std::vector<Copy> mirrored = ReadAll(dataset, options);
  ASSERT_EQ(plain.size(), mirrored.size());
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_EQ(plain[i].samples, mirrored[i].samples);
    std::vector<float> images = plain[i].images;
    for (auto row = images.begin(); row != images.end(); row += kSide) std::reverse(row, row + kSide);
    EXPECT_EQ(images, mirrored[i].images);
  }
}

// Three epochs, stopped and resumed in a hundred random places, each time on another number of ranks: the run
// trains the same samples as a run without stops.
TEST(Loader, StopsAndNumbersOfRanksLeaveNoTraceInTheSamples) {
  constexpr int64_t kSamples =
      20011;  // a prime: no batch and no number of ranks divides it; two windows of blocks
  constexpr int kWorlds[] = {1, 2, 3, 5, 8};
  const NumberedImages dataset(kSamples);
  Rng rng(2, RandomStream("test"), 0, 0);
  for (const OrderKind order : {OrderKind::kFull, OrderKind::kBlock, OrderKind::kSequential}) {
    for (const int64_t global_batch : {97, 1009}) {
      SCOPED_TRACE(absl::StrCat("order ", static_cast<int>(order), ", global batch ", global_batch));
      LoaderOptions options = SmallOptions();
      options.image_size = 1;
      options.order = order;
      options.global_batch = global_batch;
      options.rows = 50;
      const std::vector<std::vector<uint64_t>> whole = SamplesOf(dataset, options, 1);
      const int64_t per_epoch = BatchesPerEpoch(kSamples, global_batch);
      ASSERT_EQ(std::ssize(whole), 3 * per_epoch);
      std::set<int64_t> stops = {0};
      while (stops.size() < 100 && std::ssize(stops) < 3 * per_epoch)
        stops.insert(rng.NextBelow(static_cast<uint32_t>(3 * per_epoch)));
      for (auto stop = stops.begin(); stop != stops.end(); ++stop) {
        const int64_t end = std::next(stop) == stops.end() ? 3 * per_epoch : *std::next(stop);
        options.first_epoch = static_cast<uint32_t>(*stop / per_epoch);
        options.first_batch = *stop % per_epoch;
        options.world = kWorlds[rng.NextBelow(std::size(kWorlds))];
        std::vector<std::unique_ptr<Loader>> ranks;
        for (options.rank = 0; options.rank < options.world; ++options.rank)
          ranks.push_back(Make(dataset, options));
        for (int64_t k = *stop; k < end; ++k) {
          std::vector<uint64_t> trained;
          for (const std::unique_ptr<Loader>& rank : ranks) {
            for (bool last = false; !last;) {
              const absl::StatusOr<Batch> batch = rank->Next();
              ASSERT_TRUE(batch.ok());
              trained.insert(trained.end(), batch->samples, batch->samples + batch->rows);
              last = batch->micro + 1 == batch->micros;
            }
          }
          ASSERT_EQ(trained, whole[static_cast<size_t>(k)]) << "step " << k << " on " << options.world;
        }
      }
      for (int64_t epoch = 0; epoch < 3; ++epoch) {
        std::vector<int> seen(kSamples);
        for (int64_t k = epoch * per_epoch; k < (epoch + 1) * per_epoch; ++k)
          for (const uint64_t sample : whole[static_cast<size_t>(k)]) ++seen[sample];
        EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), kSamples);
      }
    }
  }
}

TEST(Loader, AddsWorkersOnlyWhileTheConsumerWaits) {
  NumberedImages dataset(1000);
  LoaderOptions options = SmallOptions();
  options.global_batch = options.rows = 20;
  options.workers = 0;
  options.max_workers = 3;
  dataset.delay = std::chrono::milliseconds(1);
  const std::unique_ptr<Loader> slow = Make(dataset, options);
  EXPECT_EQ(slow->workers(), 1);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(slow->Next().ok());
  EXPECT_EQ(slow->workers(), 3);

  const NumberedImages quick(1000);
  const std::unique_ptr<Loader> fast = Make(quick, options);
  for (int i = 0; i < 20; ++i) {  // never before the ring is full; the batch in use stays in it
    const int used = std::max(0, i - 1);
    while (quick.reads < options.rows * (used + options.prefetch)) std::this_thread::yield();
    ASSERT_TRUE(fast->Next().ok());
  }
  EXPECT_EQ(fast->workers(), 1);
}

TEST(Loader, TellsWhereTheTimeOfItsWorkersGoes) {
  NumberedImages dataset(100);
  dataset.delay = std::chrono::milliseconds(1);
  const std::unique_ptr<Loader> loader = Make(dataset, SmallOptions());
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(loader->Next().ok());
  const StageTimes times = loader->times();
  EXPECT_GT(times[static_cast<size_t>(Stage::kRead)], 5.0);  // at least as many samples were read
  EXPECT_GT(times[static_cast<size_t>(Stage::kAugment)], 0);
  EXPECT_LT(times[static_cast<size_t>(Stage::kAugment)], times[static_cast<size_t>(Stage::kRead)]);
}

TEST(Loader, StopsCleanlyInAnyState) {
  NumberedImages dataset(1000);
  LoaderOptions options = SmallOptions();
  options.workers = 3;
  for (const int delay : {0, 200}) {
    dataset.delay = std::chrono::microseconds(delay);
    for (int taken = 0; taken < 8; ++taken) {
      const std::unique_ptr<Loader> loader = Make(dataset, options);
      for (int i = 0; i < taken; ++i) EXPECT_TRUE(loader->Next().ok());
    }
  }
}

TEST(Loader, ReadsAheadButNeverIntoTheBatchInUse) {
  const NumberedImages dataset(1000);
  LoaderOptions options = SmallOptions();
  options.global_batch = options.rows = 4;
  options.prefetch = 3;
  const std::unique_ptr<Loader> loader = Make(dataset, options);
  for (int step = 1; step <= 5; ++step) {
    const absl::StatusOr<Batch> batch = loader->Next();
    ASSERT_TRUE(batch.ok());
    const Copy before = CopyOf(*batch, options);
    const int64_t expected = (step - 1 + options.prefetch) * options.rows;  // the ring is full, and stays so
    while (dataset.reads < expected) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    EXPECT_EQ(dataset.reads, expected);
    ExpectSame(CopyOf(*batch, options), before);
  }
}

TEST(Loader, MeasuresTheWait) {
  NumberedImages dataset(100);
  dataset.delay = std::chrono::milliseconds(2);
  const std::unique_ptr<Loader> loader = Make(dataset, SmallOptions());
  const auto start = std::chrono::steady_clock::now();
  const absl::StatusOr<Batch> batch = loader->Next();
  const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;
  ASSERT_TRUE(batch.ok());
  EXPECT_GT(batch->wait_ms, 0);
  EXPECT_LE(batch->wait_ms, elapsed.count());
}

void ExpectInvalid(const LoaderOptions& options, const std::string& message, int64_t samples = 20,
                   int channels = 1) {
  const NumberedImages dataset(samples, channels);
  const absl::Status status = MakeLoader(dataset, options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(message));
}

template <class T>
LoaderOptions With(T LoaderOptions::*field, T value) {
  LoaderOptions options = SmallOptions();
  options.*field = value;
  return options;
}

TEST(Loader, RejectsWhatCannotWork) {
  ExpectInvalid(With(&LoaderOptions::global_batch, int64_t{0}), "global_batch is 0");
  ExpectInvalid(With(&LoaderOptions::rank, 1), "rank 1 is not one of 1");
  ExpectInvalid(With(&LoaderOptions::image_size, 0), "image_size is 0");
  ExpectInvalid(With(&LoaderOptions::rows, int64_t{0}), "rows is 0");
  ExpectInvalid(With(&LoaderOptions::workers, -1), "workers is -1");
  ExpectInvalid(With(&LoaderOptions::prefetch, -1), "prefetch is -1");
  ExpectInvalid(With(&LoaderOptions::channels, 1), "takes 1 channels, the train split has 3", 20, 3);
  ExpectInvalid(With(&LoaderOptions::channels, 4), "takes 4 channels, the train split has 1");
  ExpectInvalid(With(&LoaderOptions::first_batch, int64_t{3}), "batch 3 of an epoch of 2 batches");
  ExpectInvalid(With(&LoaderOptions::stats, PixelStats{{0.5f}, {0}}), "channel 0 is 0");
  ExpectInvalid(With(&LoaderOptions::stats, PixelStats{{0.5f, 0.5f}, {1, 1}}), "2 means and 2 deviations");
  ExpectInvalid(SmallOptions(), "no samples", 0);
  ExpectInvalid(With(&LoaderOptions::slices, 3), "3 slices of 4 rows do not hold a global batch of 13");
  LoaderOptions uneven = With(&LoaderOptions::slices, 8);
  uneven.world = 3;
  ExpectInvalid(uneven, "8 slices of 4 rows do not hold a global batch of 13 on 3 ranks");
}

}  // namespace
}  // namespace deeper
