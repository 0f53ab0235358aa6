// Makes the samples of a batch: reads them, draws their augmentation, writes each to its place, mixes
// partners.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "data/load/dataset.h"
#include "data/load/loader.h"
#include "data/load/sample_order.h"
#include "kernels/base/buffer.h"
#include "kernels/base/image_sampling.h"
#include "kernels/base/rng.h"

namespace deeper {

// A batch before anything of it is read.
struct BatchPlan {
  Batch batch;           // all but the pointers and wait_ms
  int64_t first = 0;     // position of row 0 in the epoch's order
  int64_t distinct = 0;  // rows to read; row i beyond them repeats row i % distinct
};

// An unfinished batch: its plan, and the memory that Batch points to.
struct BatchInMaking {
  BatchPlan plan;
  Buffer images;  // packed: PackedBatchBytes; else floats [rows, channels, image_size, image_size]
  std::vector<int32_t> labels, partner_labels;  // [rows], as the next two
  std::vector<uint64_t> samples;
  std::vector<float> partner_weights;
};

// Entries of a packed batch: its rows, and partners from just before and just after them.
int64_t PackedEntries(const LoaderOptions& options);

class SampleMaker {
 public:
  // scales: [channels]; grey: value of the mean pixel, 0 to 255.
  SampleMaker(const Dataset& dataset, const LoaderOptions& options, std::vector<PixelScale> scales,
              float grey)
      : dataset_(dataset),
        options_(options),
        scales_(std::move(scales)),
        grey_(grey),
        image_elements_(int64_t{options.channels} * options.image_size * options.image_size) {}

  // Memory that a thread reuses for each sample.
  struct Scratch {
    Image image;
    std::vector<float> partner;  // a partner that belongs to another batch
  };

  // Fills row `row` of batch.plan.distinct, and the rows that repeat it. Of two partners in one batch, the
  // call for the lower row fills both. Many threads may call it, each with its own rows. Errors as
  // Dataset::Read.
  absl::Status FillRow(BatchInMaking& batch, int64_t row, Scratch& scratch);

  const std::vector<PixelScale>& scales() const { return scales_; }
  // See Loader::bad_samples.
  std::map<int64_t, std::string> bad_samples() const {
    const std::lock_guard lock(mutex_);
    return bad_;
  }

 private:
  absl::StatusOr<int64_t> Prepare(BatchInMaking& batch, int64_t position, int64_t entry, Scratch& scratch);
  bool MayReplace(int64_t sample, const absl::Status& status);
  absl::Status PrepareSample(BatchInMaking& batch, int64_t sample, int64_t entry, Scratch& scratch) const;
  SampleOrder OrderOf(const BatchPlan& plan) const {
    return SampleOrder(options_.order, dataset_.info().samples, options_.seed, plan.batch.epoch);
  }
  Rng Draws(std::string_view what, const BatchPlan& plan, int64_t sample) const {
    return Rng(options_.seed, RandomStream(what), plan.batch.epoch, static_cast<uint64_t>(sample));
  }
  float* Pixels(BatchInMaking& batch, int64_t entry, Scratch& scratch) const;
  bool FitsItsPlace(ImageSize size) const;
  uint8_t* Place(BatchInMaking& batch, int64_t entry, ImageSize image, const Sampling& sampling) const;
  void Cut(Sampling& sampling, Image* image) const;
  void Pack(BatchInMaking& batch, int64_t entry, Sampling sampling, Image* image) const;
  void MixEntries(BatchInMaking& batch, const Mix& mix, int64_t a, int64_t b, Scratch& scratch) const;
  void Finish(BatchInMaking& batch, int64_t row, int64_t sample, int64_t partner, float weight) const;

  const Dataset& dataset_;
  const LoaderOptions options_;
  const std::vector<PixelScale> scales_;
  const float grey_;
  const int64_t image_elements_;
  mutable std::mutex mutex_;  // guards bad_
  std::map<int64_t, std::string> bad_;
};

}  // namespace deeper
