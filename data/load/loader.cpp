#include "data/load/loader.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/load/sample_maker.h"
#include "kernels/base/buffer.h"
#include "kernels/base/clock.h"
#include "kernels/base/status.h"
#include "kernels/base/trace.h"

namespace deeper {
namespace {

// Rows per claim at most: small images take about a microsecond each, as short as a contended lock.
constexpr int64_t kMaxClaim = 16;

// The batches of one rank, in order: rows of global batches, in epochs of `samples`.
class BatchSequence {
 public:
  // `options`: as checked by MakeLoader.
  BatchSequence(int64_t samples, const LoaderOptions& options)
      : samples_(samples), options_(options), epoch_(options.first_epoch), batch_(options.first_batch) {
    StartBatch();
  }

  bool done() const { return options_.epochs != 0 && epoch_ >= options_.epochs; }

  BatchPlan Next() {
    const int64_t begin = batch_ * options_.global_batch, count = GlobalRows();
    const Slice rows = Rows();
    const bool any = rows.size() > 0;  // a rank without samples pads with the global batch's first
    BatchPlan plan;
    plan.first = any ? rows.begin : begin;
    plan.distinct = any ? rows.size() : std::min(count, options_.rows);
    plan.batch.rows = rows.size();
    plan.batch.epoch = epoch_;
    plan.batch.batch = batch_;
    plan.batch.global_rows = count;
    plan.batch.micro = micro_;
    plan.batch.micros = micros_;
    plan.batch.last_in_epoch = begin + count == samples_;
    if (++micro_ == micros_) {
      ++batch_;
      StartBatch();
    }
    return plan;
  }

 private:
  Slice Rows() const {
    if (options_.slices > 0) {
      return RankSlice(samples_, options_.global_batch, batch_, options_.rank * micros_ + micro_,
                       options_.slices);
    }
    const Slice share = RankSlice(samples_, options_.global_batch, batch_, options_.rank, options_.world);
    return {share.begin + share.size() * micro_ / micros_,
            share.begin + share.size() * (micro_ + 1) / micros_};
  }

  int64_t GlobalRows() const {
    return std::min(options_.global_batch, samples_ - batch_ * options_.global_batch);
  }

  void StartBatch() {
    if (batch_ == BatchesPerEpoch(samples_, options_.global_batch)) {
      batch_ = 0;
      ++epoch_;
    }
    micro_ = 0;
    // Rows of the largest share, so that all ranks have the same number of micro-batches.
    const int64_t share = (GlobalRows() + options_.world - 1) / options_.world;
    micros_ = static_cast<int>(options_.slices > 0 ? options_.slices / options_.world
                                                   : (share + options_.rows - 1) / options_.rows);
  }

  const int64_t samples_;
  const LoaderOptions options_;
  uint32_t epoch_;
  int64_t batch_;
  int micro_ = 0, micros_ = 1;
};

class RingLoader : public Loader {
 public:
  RingLoader(const Dataset& dataset, const LoaderOptions& options, std::vector<PixelScale> scales, float grey,
             std::vector<Buffer> images)
      : options_(options),
        maker_(dataset, options, std::move(scales), grey),
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
    const double start = Milliseconds();
    std::unique_lock lock(mutex_);
    RETURN_IF_ERROR(failure_);
    released_ = delivered_;
    claimable_.notify_one();
    if (delivered_ == planned_ && sequence_.done()) {
      return OutOfRange("no batches left after ", options_.epochs, " epochs");
    }
    Slot& slot = slots_[delivered_ % slots_.size()];
    const auto filled = [&] { return delivered_ < planned_ && slot.unfilled == 0; };
    if (!filled()) AskForWorker();
    filled_.wait(lock, filled);
    Batch batch = slot.plan.batch;
    if (!slot.status.ok()) {
      const bool looks_like_the_end = absl::IsOutOfRange(slot.status);
      failure_ = absl::Status(looks_like_the_end ? absl::StatusCode::kDataLoss : slot.status.code(),
                              absl::StrCat(slot.status.message(), " (epoch ", batch.epoch, ", batch ",
                                           batch.batch, ", rank ", options_.rank, ")"));
      return failure_;
    }
    ++delivered_;
    if (options_.packed) {
      batch.packed = slot.images.data();
      batch.packed_bytes = slot.images.bytes();
      batch.packed_entries = PackedEntries(options_);
      std::ranges::copy(maker_.scales(), batch.scales.channel);
    } else {
      batch.images = slot.images.as<const float>();
    }
    batch.labels = slot.labels.data();
    batch.samples = slot.samples.data();
    batch.partner_labels = slot.partner_labels.data();
    batch.partner_weights = slot.partner_weights.data();
    batch.wait_ms = Milliseconds() - start;
    return batch;
  }

  StageTimes times() const override { return clock_.Read(); }

  int workers() const override {
    const std::lock_guard lock(mutex_);
    return static_cast<int>(workers_.size());
  }

  std::map<int64_t, std::string> bad_samples() const override { return maker_.bad_samples(); }

 private:
  struct Slot : BatchInMaking {
    int64_t unclaimed = 0, unfilled = 0;  // of plan.distinct; claimed in order
    absl::Status status;                  // of the lowest row that failed
    int64_t failed_row = 0;
  };

  // Callers of the functions from here to Work hold mutex_.

  void AddWorker() {
    workers_.emplace_back([this] { Work(); });
  }

  // The consumer is about to wait. The effect of one more worker shows after the ring has been used once.
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

  // Takes the next rows to fill, from a new batch if the newest one has none left.
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

  void Work() {
    TraceLane("data");
    CarryStageClock(&clock_);
    SampleMaker::Scratch scratch;
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
        status = maker_.FillRow(*slot, row, scratch);
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

  const LoaderOptions options_;
  SampleMaker maker_;
  StageClock clock_;

  // Guards everything below, except the rows of a slot, which belong to the worker that claimed them.
  mutable std::mutex mutex_;
  std::condition_variable claimable_, filled_;
  int64_t last_added_ = 0;  // batches delivered at the latest request for a worker
  BatchSequence sequence_;
  std::vector<Slot> slots_;  // batch i of the sequence is in slot i % size
  // Numbers of batches planned, handed to the consumer, and released by it.
  int64_t planned_ = 0, delivered_ = 0, released_ = 0;
  absl::Status failure_;
  bool stop_ = false;
  std::vector<std::thread> workers_;
};

absl::Status CheckOptions(const DatasetInfo& info, const LoaderOptions& o) {
  if (info.samples <= 0) return InvalidArgument("the ", info.split, " split has no samples");
  const std::pair<const char*, int64_t> positive[] = {{"image_size", o.image_size},
                                                      {"global_batch", o.global_batch},
                                                      {"rows", o.rows},
                                                      {"world", o.world},
                                                      {"workers", o.workers == 0 ? o.max_workers : o.workers},
                                                      {"prefetch", o.prefetch}};
  for (const auto& [name, value] : positive) {
    if (value <= 0) return InvalidArgument("loader: ", name, " is ", value, ", must be positive");
  }
  if (o.rank < 0 || o.rank >= o.world) {
    return InvalidArgument("loader: rank ", o.rank, " is not one of ", o.world);
  }
  if (o.slices < 0 || o.slices % o.world != 0 || o.rows * o.slices < (o.slices > 0 ? o.global_batch : 0)) {
    return InvalidArgument("loader: ", o.slices, " slices of ", o.rows, " rows do not hold ",
                           "a global batch of ", o.global_batch, " on ", o.world, " ranks");
  }
  if (o.channels != info.channels && !(o.channels == 3 && info.channels == 1)) {
    return InvalidArgument("the model takes ", o.channels, " channels, the ", info.split, " split has ",
                           info.channels, "; only 1 can be expanded to 3");
  }
  const int64_t batches = BatchesPerEpoch(info.samples, o.global_batch);
  if (o.first_batch < 0 || o.first_batch > batches) {
    return InvalidArgument("cannot begin at batch ", o.first_batch, " of an epoch of ", batches,
                           " batches; use the checkpoint's global batch size and data set");
  }
  return absl::OkStatus();
}

// One entry per output channel. A single mean and deviation applies to all of them.
absl::StatusOr<std::vector<PixelScale>> MakeScales(const PixelStats& stats, int channels) {
  const size_t entries = stats.mean.size();
  if (entries != stats.stddev.size() || (entries != 1 && entries != static_cast<size_t>(channels))) {
    return InvalidArgument("pixel statistics have ", entries, " means and ", stats.stddev.size(),
                           " deviations, need ", channels, " (or 1) of each");
  }
  std::vector<PixelScale> scales;
  for (int c = 0; c < channels; ++c) {
    const float mean = stats.mean[c % entries], stddev = stats.stddev[c % entries];
    if (!(stddev > 0)) {
      return InvalidArgument("standard deviation of channel ", c, " is ", stddev, ", must be positive");
    }
    scales.push_back({1 / (255 * stddev), -mean / stddev});
  }
  return scales;
}

}  // namespace

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
      return ResourceExhausted("no host memory for ", options.prefetch, " prefetched batches of ", bytes,
                               " bytes; prefetch fewer, or use a smaller batch");
    }
  }
  const float mean =
      std::accumulate(stats.mean.begin(), stats.mean.end(), 0.0f) / static_cast<float>(stats.mean.size());
  return std::make_unique<RingLoader>(dataset, options, std::move(scales), 255 * mean, std::move(images));
}

}  // namespace deeper
