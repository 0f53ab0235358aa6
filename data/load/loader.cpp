#include "data/load/loader.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <numeric>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/image/resize.h"
#include "data/load/batch_sequence.h"
#include "kernels/base/buffer.h"
#include "kernels/base/status.h"
#include "kernels/base/trace.h"

namespace deeper {
namespace {

size_t RoundUp(size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

bool Mixes(const LoaderOptions& options) {
  return options.mixup > 0 || options.cutmix > 0;
}

// Samples that a batch may hold: its rows, and partners from before the first one and after the last one.
int64_t Entries(const LoaderOptions& options) {
  return options.rows + (Mixes(options) ? 2 : 0);
}

// Of a packed batch: what comes before the pixels, and what is set aside for the pixels of one entry.
size_t PackedHeaderBytes(const LoaderOptions& options) {
  return RoundUp(static_cast<size_t>(Entries(options)) * sizeof(PackedImage));
}
size_t PackedImageBytes(const DatasetInfo& info, const LoaderOptions& options) {
  const int64_t pixels = info.height > 0 ? int64_t{info.height} * info.width
                                         : int64_t{4} * options.image_size * options.image_size;
  return RoundUp(static_cast<size_t>(pixels * info.channels));
}

// Claims are a few rows at a time: small images take about a microsecond each, no more than a contended lock.
constexpr int64_t kMaxClaim = 16;

class RingLoader : public Loader {
 public:
  RingLoader(const Dataset& dataset, const LoaderOptions& options, std::vector<PixelScale> scales, float grey,
             std::vector<Buffer> images)
      : dataset_(dataset),
        options_(options),
        scales_(std::move(scales)),
        grey_(grey),
        image_elements_(int64_t{options.channels} * options.image_size * options.image_size),
        sequence_(dataset.info().samples, options),
        slots_(images.size()) {
    for (size_t i = 0; i < slots_.size(); ++i) {
      slots_[i].images = std::move(images[i]);
      slots_[i].labels.resize(options.rows);
      slots_[i].samples.resize(options.rows);
      slots_[i].partner_labels.resize(options.rows);
      slots_[i].partner_weights.resize(options.rows);
    }
    const std::lock_guard lock(mutex_);
    for (int i = 0; i < std::max(1, options.workers); ++i) AddWorker();
  }

  ~RingLoader() override {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    claimable_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  absl::StatusOr<Batch> Next() override {
    const auto start = std::chrono::steady_clock::now();
    std::unique_lock lock(mutex_);
    if (!failure_.ok()) return failure_;
    released_ = delivered_;
    claimable_.notify_one();
    if (delivered_ == planned_ && sequence_.done()) {
      return absl::OutOfRangeError(absl::StrCat("no batches left after ", options_.epochs, " epochs"));
    }
    Slot& slot = slots_[delivered_ % slots_.size()];
    const auto filled = [&] { return delivered_ < planned_ && slot.unfilled == 0; };
    if (!filled()) AskForWorker();
    filled_.wait(lock, filled);
    Batch batch = slot.plan.batch;
    if (!slot.status.ok()) {
      failure_ = absl::Status(slot.status.code(),
                              absl::StrCat(slot.status.message(), " (epoch ", batch.epoch, ", batch ",
                                           batch.batch, ", rank ", options_.rank, ")"));
      return failure_;
    }
    ++delivered_;
    if (options_.packed) {
      batch.packed = slot.images.data();
      batch.packed_bytes = slot.images.bytes();
      std::copy(scales_.begin(), scales_.end(), batch.scales.channel);
    } else {
      batch.images = slot.images.as<const float>();
    }
    batch.labels = slot.labels.data();
    batch.samples = slot.samples.data();
    batch.partner_labels = slot.partner_labels.data();
    batch.partner_weights = slot.partner_weights.data();
    batch.wait_ms =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    return batch;
  }

  StageTimes times() const override { return clock_.Read(); }

  int workers() const override {
    const std::lock_guard lock(mutex_);
    return static_cast<int>(workers_.size());
  }

  std::map<int64_t, std::string> bad_samples() const override {
    const std::lock_guard lock(mutex_);
    return bad_;
  }

 private:
  struct Slot {
    Buffer images;
    std::vector<int32_t> labels;
    std::vector<uint64_t> samples;
    std::vector<int32_t> partner_labels;
    std::vector<float> partner_weights;
    BatchPlan plan;
    int64_t unclaimed = 0, unfilled = 0;  // of plan.distinct; rows are claimed from the first on
    absl::Status status;                  // of the lowest row that failed
    int64_t failed_row = 0;
  };

  // The functions down to Work hold mutex_.

  void AddWorker() {
    workers_.emplace_back([this] { Work(); });
  }

  // The consumer is about to wait. What a worker more brings shows once the ring was used up.
  void AskForWorker() {
    if (options_.workers > 0 || std::ssize(workers_) >= options_.max_workers) return;
    if (delivered_ < last_added_ + std::ssize(slots_)) return;
    last_added_ = delivered_;
    AddWorker();
  }

  Slot& newest() { return slots_[(planned_ - 1) % slots_.size()]; }

  bool CanClaim() {
    if (planned_ > 0 && newest().unclaimed > 0) return true;
    return !sequence_.done() && planned_ - released_ < static_cast<int64_t>(slots_.size());
  }

  // Takes the next rows to fill, of a new batch if all of the newest one's are taken.
  std::pair<Slot*, Slice> Claim() {
    if (planned_ == 0 || newest().unclaimed == 0) {
      ++planned_;
      newest().plan = sequence_.Next();
      newest().unclaimed = newest().unfilled = newest().plan.distinct;
      claimable_.notify_all();
    }
    Slot& slot = newest();
    const int64_t begin = slot.plan.distinct - slot.unclaimed;
    const int64_t fair = slot.plan.distinct / (4 * std::ssize(workers_));
    const int64_t count = std::min(slot.unclaimed, std::clamp(fair, int64_t{1}, kMaxClaim));
    slot.unclaimed -= count;
    return {&slot, {begin, begin + count}};
  }

  // A worker's own.
  struct Scratch {
    Image image;
    std::vector<float> partner;  // a sample that another batch has
  };

  void Work() {
    TraceLane("data");
    CarryStageClock(&clock_);
    Scratch scratch;
    std::unique_lock lock(mutex_);
    while (true) {
      EnterStage(Stage::kIdle);
      claimable_.wait(lock, [&] { return stop_ || CanClaim(); });
      if (stop_) return;
      const auto [slot, rows] = Claim();
      lock.unlock();
      const Batch& batch = slot->plan.batch;
      if (Tracing())
        TraceBegin(TraceLevel::kStep, absl::StrCat("rows ", rows.begin, " to ", rows.end - 1, " of epoch ",
                                                   batch.epoch, ", batch ", batch.batch));
      absl::Status status;
      int64_t row = rows.begin;
      for (; row < rows.end; ++row) {
        status = FillRow(*slot, row, scratch);
        if (!status.ok()) break;
      }
      TraceEnd(TraceLevel::kStep);
      lock.lock();
      if (!status.ok() && (slot->status.ok() || row < slot->failed_row)) {
        slot->status = status;
        slot->failed_row = row;
      }
      slot->unfilled -= rows.size();
      if (slot->unfilled == 0) filled_.notify_one();
    }
  }

  // Row `row` and, where that is another row, its partner: the later one of two has nothing left to do.
  absl::Status FillRow(Slot& slot, int64_t row, Scratch& scratch) {
    const BatchPlan& plan = slot.plan;
    const int64_t position = plan.first + row, partner = Mixes(options_) ? position ^ 1 : position;
    EnterStage(Stage::kRead);
    dataset_.ReadAhead(OrderOf(plan).ReadAhead(position));
    if (partner == position || partner >= dataset_.info().samples) return FillAlone(slot, row, scratch);
    const int64_t partner_row = partner - plan.first;
    const bool together = partner_row >= 0 && partner_row < plan.distinct;
    if (together && partner_row < row) return absl::OkStatus();
    const int64_t entry = together ? partner_row : options_.rows + (partner_row > row ? 1 : 0);
    ASSIGN_OR_RETURN(const int64_t own, Prepare(slot, position, row, scratch));
    ASSIGN_OR_RETURN(const int64_t other, Prepare(slot, partner, entry, scratch));
    const Mix mix = DrawMix(options_.mixup, options_.cutmix, options_.image_size,
                            Draws("mix", plan, OrderOf(plan).At(std::min(position, partner))));
    MixEntries(slot, mix, row, entry, scratch);
    Finish(slot, row, own, other, mix.weight);
    if (together) Finish(slot, partner_row, other, own, mix.weight);
    return absl::OkStatus();
  }

  absl::Status FillAlone(Slot& slot, int64_t row, Scratch& scratch) {
    ASSIGN_OR_RETURN(const int64_t sample, Prepare(slot, slot.plan.first + row, row, scratch));
    Finish(slot, row, sample, sample, 0);
    return absl::OkStatus();
  }

  SampleOrder OrderOf(const BatchPlan& plan) const {
    return SampleOrder(options_.order, dataset_.info().samples, options_.seed, plan.batch.epoch);
  }

  Rng Draws(std::string_view what, const BatchPlan& plan, int64_t sample) const {
    return Rng(options_.seed, RandomStream(what), plan.batch.epoch, static_cast<uint64_t>(sample));
  }

  // Reads the sample at `position` of the epoch, or the next one that can be read, into entry `entry`, mixed
  // with nothing yet. Returns which it is.
  absl::StatusOr<int64_t> Prepare(Slot& slot, int64_t position, int64_t entry, Scratch& scratch) {
    int64_t sample = OrderOf(slot.plan).At(position);
    absl::Status prepared = PrepareSample(slot, sample, entry, scratch);
    while (absl::IsDataLoss(prepared) && options_.allow_bad > 0) {
      if (!MayReplace(sample, prepared)) {
        return absl::DataLossError(absl::StrCat(prepared.message(), "; that is one bad sample more than the ",
                                                options_.allow_bad, " that are allowed"));
      }
      sample = (sample + 1) % dataset_.info().samples;
      prepared = PrepareSample(slot, sample, entry, scratch);
    }
    if (!prepared.ok()) return prepared;
    return sample;
  }

  // Counts the bad sample.
  bool MayReplace(int64_t sample, const absl::Status& status) {
    const std::lock_guard lock(mutex_);
    bad_.emplace(sample, status.message());
    return std::ssize(bad_) <= std::min(options_.allow_bad, dataset_.info().samples - 1);
  }

  // One sample, from the disk to its place in the batch.
  absl::Status PrepareSample(Slot& slot, int64_t sample, int64_t entry, Scratch& scratch) const {
    const int size = options_.image_size;
    Sampling sampling;
    sampling.filter = FilterOf(options_.augment);
    sampling.color = DrawColor(options_.color_jitter, grey_, Draws("color", slot.plan, sample));
    if (options_.bgr) std::swap(sampling.color.m[0], sampling.color.m[2]);
    sampling.erased = DrawErased(options_.random_erasing, size, Draws("erase", slot.plan, sample));
    const auto choose = [&](ImageSize image) {
      sampling.window =
          DrawWindow(options_.augment, size, image.height, image.width, Draws("augment", slot.plan, sample));
      return PixelsOf(sampling.window, sampling.filter, size, size, image);
    };
    EnterStage(Stage::kRead);
    const ImageSize stored = options_.packed ? dataset_.StoredPixels(sample) : ImageSize{};
    if (FitsItsPlace(stored)) {  // from the file to the batch; all of it, whatever is wanted of it
      choose(stored);
      return dataset_.ReadPixels(sample, Place(slot, entry, stored, sampling));
    }
    RETURN_IF_ERROR(dataset_.ReadPart(sample, choose, &scratch.image));
    EnterStage(Stage::kAugment);
    sampling.window.x -= static_cast<float>(scratch.image.x);
    sampling.window.y -= static_cast<float>(scratch.image.y);
    if (options_.packed) {
      Pack(slot, entry, sampling, &scratch.image);
    } else {
      SampleImage(scratch.image, sampling, scales_.data(), options_.channels, size, size,
                  Pixels(slot, entry, scratch));
    }
    return absl::OkStatus();
  }

  // Of an entry that is not packed.
  float* Pixels(Slot& slot, int64_t entry, Scratch& scratch) const {
    if (entry < options_.rows) return slot.images.as<float>() + entry * image_elements_;
    scratch.partner.resize(static_cast<size_t>(image_elements_));
    return scratch.partner.data();
  }

  // Whether so many pixels are as they may lie in a packed batch; 0 of them: no.
  bool FitsItsPlace(ImageSize size) const {
    const auto bytes = static_cast<size_t>(int64_t{size.height} * size.width * dataset_.info().channels);
    return bytes > 0 && bytes <= PackedImageBytes(dataset_.info(), options_);
  }

  // Enters an image in a packed batch; returns where its pixels belong.
  uint8_t* Place(Slot& slot, int64_t entry, ImageSize image, const Sampling& sampling) const {
    const size_t offset = PackedHeaderBytes(options_) +
                          static_cast<size_t>(entry) * PackedImageBytes(dataset_.info(), options_);
    slot.images.as<PackedImage>()[entry] = {static_cast<int64_t>(offset), image.height, image.width,
                                            dataset_.info().channels, sampling};
    return slot.images.as<uint8_t>() + offset;
  }

  // Lays pixels where they belong in a packed batch; changes *image if it is too large.
  void Pack(Slot& slot, int64_t entry, Sampling sampling, Image* image) const {
    const int size = options_.image_size;
    if (!FitsItsPlace({image->height, image->width})) {
      *image = ResizeWindow(*image, sampling.window, sampling.filter, size, size);
      sampling.window = {0, 0, static_cast<float>(size), static_cast<float>(size)};
    }
    std::copy(image->pixels.begin(), image->pixels.end(),
              Place(slot, entry, {image->height, image->width}, sampling));
  }

  void MixEntries(Slot& slot, const Mix& mix, int64_t a, int64_t b, Scratch& scratch) const {
    const int size = options_.image_size;
    if (!options_.packed) {
      return MixSamples(mix, options_.channels, size, size, Pixels(slot, a, scratch),
                        Pixels(slot, b, scratch));
    }
    auto* const entries = slot.images.as<PackedImage>();
    entries[a].mix = entries[b].mix = mix;
    entries[a].partner = static_cast<int32_t>(b);
    entries[b].partner = static_cast<int32_t>(a);
  }

  // Labels row `row`, and copies it to the padding rows that repeat it.
  void Finish(Slot& slot, int64_t row, int64_t sample, int64_t partner, float weight) const {
    for (int64_t i = row; i < options_.rows; i += slot.plan.distinct) {
      if (i != row) Repeat(slot, row, i);
      slot.labels[i] = i < slot.plan.batch.rows ? dataset_.label(sample) : -1;
      slot.samples[i] = static_cast<uint64_t>(sample);
      slot.partner_labels[i] = dataset_.label(partner);
      slot.partner_weights[i] = weight;
    }
  }

  void Repeat(Slot& slot, int64_t row, int64_t into) const {
    if (options_.packed) {
      slot.images.as<PackedImage>()[into] = slot.images.as<PackedImage>()[row];
    } else {
      auto* const images = slot.images.as<float>();
      std::copy_n(images + row * image_elements_, image_elements_, images + into * image_elements_);
    }
  }

  const Dataset& dataset_;
  const LoaderOptions options_;
  const std::vector<PixelScale> scales_;
  const float grey_;  // of the mean pixel, 0 to 255
  const int64_t image_elements_;

  StageClock clock_;

  // Guards everything below, but the rows of a slot belong to whoever claimed them.
  mutable std::mutex mutex_;
  std::condition_variable claimable_, filled_;
  int64_t last_added_ = 0;  // batches delivered when the latest worker was asked for
  std::map<int64_t, std::string> bad_;
  BatchSequence sequence_;
  std::vector<Slot> slots_;  // batch i of the sequence is in slot i % size
  // Batches planned, handed to the consumer, and no longer in its use.
  int64_t planned_ = 0, delivered_ = 0, released_ = 0;
  absl::Status failure_;
  bool stop_ = false;
  std::vector<std::thread> workers_;
};

absl::Status CheckOptions(const DatasetInfo& info, const LoaderOptions& o) {
  if (info.samples <= 0)
    return absl::InvalidArgumentError(absl::StrCat("the ", info.split, " split has no samples"));
  const std::pair<const char*, int64_t> positive[] = {{"image_size", o.image_size},
                                                      {"global_batch", o.global_batch},
                                                      {"rows", o.rows},
                                                      {"world", o.world},
                                                      {"workers", o.workers == 0 ? o.max_workers : o.workers},
                                                      {"prefetch", o.prefetch}};
  for (const auto& [name, value] : positive) {
    if (value <= 0)
      return absl::InvalidArgumentError(absl::StrCat("loader: ", name, " is ", value, ", must be positive"));
  }
  if (o.rank < 0 || o.rank >= o.world) {
    return absl::InvalidArgumentError(absl::StrCat("loader: rank ", o.rank, " is not one of ", o.world));
  }
  if (o.slices < 0 || o.slices % o.world != 0 || o.rows * o.slices < (o.slices > 0 ? o.global_batch : 0)) {
    return absl::InvalidArgumentError(absl::StrCat("loader: ", o.slices, " slices of ", o.rows,
                                                   " rows do not hold ", "a global batch of ", o.global_batch,
                                                   " on ", o.world, " ranks"));
  }
  if (o.channels != info.channels && !(o.channels == 3 && info.channels == 1)) {
    return absl::InvalidArgumentError(absl::StrCat("the model takes ", o.channels, " channels, the ",
                                                   info.split, " split has ", info.channels,
                                                   ": only 1 can become 3"));
  }
  const int64_t batches = BatchesPerEpoch(info.samples, o.global_batch);
  if (o.first_batch < 0 || o.first_batch > batches) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot begin at batch ", o.first_batch, " of an epoch of ", batches,
                     " batches: was it saved with another global batch or data set?"));
  }
  return absl::OkStatus();
}

// One entry an output channel. A single mean and deviation serves all of them.
absl::StatusOr<std::vector<PixelScale>> MakeScales(const PixelStats& stats, int channels) {
  const size_t entries = stats.mean.size();
  if (entries != stats.stddev.size() || (entries != 1 && entries != static_cast<size_t>(channels))) {
    return absl::InvalidArgumentError(absl::StrCat("pixel statistics have ", entries, " means and ",
                                                   stats.stddev.size(), " deviations, need ", channels,
                                                   " (or 1) of each"));
  }
  std::vector<PixelScale> scales;
  for (int c = 0; c < channels; ++c) {
    const float mean = stats.mean[c % entries], stddev = stats.stddev[c % entries];
    if (!(stddev > 0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("standard deviation of channel ", c, " is ", stddev, ", must be positive"));
    }
    scales.push_back({1 / (255 * stddev), -mean / stddev});
  }
  return scales;
}

}  // namespace

size_t PackedBatchBytes(const DatasetInfo& info, const LoaderOptions& options) {
  return PackedHeaderBytes(options) + static_cast<size_t>(Entries(options)) * PackedImageBytes(info, options);
}

absl::StatusOr<std::unique_ptr<Loader>> MakeLoader(const Dataset& dataset, const LoaderOptions& options) {
  const DatasetInfo& info = dataset.info();
  RETURN_IF_ERROR(CheckOptions(info, options));
  const PixelStats& stats = options.stats.mean.empty() ? info.stats : options.stats;
  ASSIGN_OR_RETURN(std::vector<PixelScale> scales, MakeScales(stats, options.channels));
  const size_t bytes = options.packed ? PackedBatchBytes(info, options)
                                      : sizeof(float) * options.rows * options.channels * options.image_size *
                                            options.image_size;
  std::vector<Buffer> images;
  for (int i = 0; i < options.prefetch; ++i) {
    images.push_back(options.allocate(bytes));
    if (images.back().data() == nullptr) {
      return absl::ResourceExhaustedError(absl::StrCat("no host memory for ", options.prefetch,
                                                       " prefetched batches of ", bytes,
                                                       " bytes: prefetch fewer, or use a smaller batch"));
    }
  }
  const float mean =
      std::accumulate(stats.mean.begin(), stats.mean.end(), 0.0f) / static_cast<float>(stats.mean.size());
  return std::make_unique<RingLoader>(dataset, options, std::move(scales), 255 * mean, std::move(images));
}

}  // namespace deeper
