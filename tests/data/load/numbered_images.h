// Shared by tests of the loader: a data set whose pixels identify its samples, and copies of a loader's
// results.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "data/load/dataset.h"
#include "data/load/loader.h"

namespace deeper {

constexpr int kSide = 6;

// Every pixel of sample i is i % 251, which identifies the samples of a batch, except one pixel that shows
// mirroring and cropping.
class NumberedImages : public Dataset {
 public:
  explicit NumberedImages(int64_t samples, int channels = 1) {
    info_.split = "train";
    info_.samples = samples;
    info_.channels = channels;
    info_.classes.resize(1000);
    info_.stats = {{0}, {1 / 255.0f}};  // the model sees the pixels themselves
  }

  const DatasetInfo& info() const override { return info_; }
  int32_t label(int64_t index) const override { return static_cast<int32_t>(index % 1000); }
  std::string Describe(int64_t index) const override { return absl::StrCat("sample ", index); }
  absl::Status Read(int64_t index, Image* image) const override {
    ++reads;
    if (delay.count() > 0) std::this_thread::sleep_for(delay);
    if (bad.count(index) > 0) return absl::Status(bad_code, absl::StrCat("sample ", index, " is broken"));
    *image = {kSide, kSide, info_.channels, {}};
    image->pixels.assign(kSide * kSide * info_.channels, static_cast<uint8_t>(index % 251));
    image->pixels.back() = 255;
    return absl::OkStatus();
  }

  std::set<int64_t> bad;
  absl::StatusCode bad_code = absl::StatusCode::kDataLoss;
  std::chrono::microseconds delay{0};
  mutable std::atomic<int64_t> reads{0};

 private:
  DatasetInfo info_;
};

inline LoaderOptions SmallOptions() {
  LoaderOptions options;
  options.image_size = kSide;
  options.channels = 1;
  options.global_batch = 13;
  options.rows = 4;
  options.seed = 9;
  options.epochs = 3;
  return options;
}

inline std::unique_ptr<Loader> Make(const Dataset& dataset, const LoaderOptions& options) {
  absl::StatusOr<std::unique_ptr<Loader>> loader = MakeLoader(dataset, options);
  EXPECT_TRUE(loader.ok()) << loader.status();
  return *std::move(loader);
}

// A batch with its own memory.
struct Copy {
  Batch batch;
  std::vector<float> images;
  std::vector<int32_t> labels;
  std::vector<uint64_t> samples;
};

inline Copy CopyOf(const Batch& batch, const LoaderOptions& o) {
  const int64_t elements = o.rows * o.channels * o.image_size * o.image_size;
  return {batch,
          {batch.images, batch.images + elements},
          {batch.labels, batch.labels + o.rows},
          {batch.samples, batch.samples + o.rows}};
}

inline std::vector<Copy> ReadAll(const Dataset& dataset, const LoaderOptions& options) {
  const std::unique_ptr<Loader> loader = Make(dataset, options);
  std::vector<Copy> batches;
  while (true) {
    const absl::StatusOr<Batch> batch = loader->Next();
    if (!batch.ok()) {
      EXPECT_EQ(batch.status().code(), absl::StatusCode::kOutOfRange) << batch.status();
      EXPECT_EQ(loader->Next().status(), batch.status());
      return batches;
    }
    batches.push_back(CopyOf(*batch, options));
  }
}

inline void ExpectSame(const Copy& a, const Copy& b) {
  EXPECT_EQ(a.batch.epoch, b.batch.epoch);
  EXPECT_EQ(a.batch.batch, b.batch.batch);
  EXPECT_EQ(a.batch.micro, b.batch.micro);
  EXPECT_EQ(a.batch.rows, b.batch.rows);
  EXPECT_EQ(a.samples, b.samples);
  EXPECT_EQ(a.labels, b.labels);
  EXPECT_EQ(a.images, b.images);
}

// The samples of a whole run by global batch, as received by `world` ranks.
inline std::vector<std::vector<uint64_t>> SamplesOf(const Dataset& dataset, LoaderOptions options,
                                                    int world) {
  options.world = world;
  std::vector<std::vector<uint64_t>> batches;
  for (options.rank = 0; options.rank < world; ++options.rank) {
    for (const Copy& copy : ReadAll(dataset, options)) {
      const int64_t per_epoch = BatchesPerEpoch(dataset.info().samples, options.global_batch);
      const auto k = static_cast<size_t>(copy.batch.epoch * per_epoch + copy.batch.batch);
      batches.resize(std::max(batches.size(), k + 1));
      batches[k].insert(batches[k].end(), copy.samples.begin(), copy.samples.begin() + copy.batch.rows);
    }
  }
  return batches;
}

}  // namespace deeper
