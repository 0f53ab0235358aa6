// Streams batches: threads read, decode, augment and normalise ahead, into a ring of buffers made once.
//
// What a batch contains is a pure function of (options, position): worker count, timing and the number of
// ranks change nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "data/image/augment.h"
#include "data/load/dataset.h"
#include "data/load/sample_order.h"
#include "data/load/stage_clock.h"
#include "kernels/base/buffer.h"
#include "kernels/base/device.h"
#include "kernels/base/image_sampling.h"

namespace deeper {

struct LoaderOptions {
  int image_size = 224;  // output height and width
  int channels = 3;      // output channels; a 1-channel dataset is repeated to 3
  PixelStats stats;      // empty: the dataset's
  Augment augment = Augment::kNone;
  // What DrawColor, DrawErased and DrawMix take; 0: not at all. The samples at positions 2i and 2i + 1 of an
  // epoch are each other's partners, alike, whatever the batches and ranks; of an odd number the last has
  // none. A batch whose bounds part two reads the other one too.
  double color_jitter = 0, random_erasing = 0, mixup = 0, cutmix = 0;
  bool bgr = false;  // output channels in this order, of 3; stats likewise
  OrderKind order = OrderKind::kFull;
  uint64_t seed = 0;
  int64_t global_batch = 256;
  int64_t rows = 0;  // rows of a Batch: a rank's share of a global batch comes in ceil(share / rows) batches,
                     // at least one
  int rank = 0, world = 1;
  // 0, or a multiple of `world`: a rank's share comes as its slices / world of the slices that the global
  // batch is cut into, one batch each (of at most `rows`), so that batches are the same whatever the number
  // of ranks.
  int slices = 0;
  // Threads that fill batches. 0: one at first, and one more for every batch that the consumer had to wait
  // for, up to `max_workers`.
  int workers = 2;
  int max_workers = AvailableCores();
  // Samples of this rank that may fail to be read (DataLoss): each is replaced by the next sample of the
  // split that can be read, whatever the rank or the epoch.
  int64_t allow_bad = 0;
  int prefetch = 3;  // batches in the ring
  // Batches come as decoded pixels with what is to become of them (Batch::packed), for SampleImages to
  // finish, and not as normalised images.
  bool packed = false;
  std::function<Buffer(size_t)> allocate = AllocateHost;  // the ring: Device::AllocateStaging
  // Where to begin: global batch `first_batch` of `first_epoch`.
  uint32_t first_epoch = 0;
  int64_t first_batch = 0;
  uint32_t epochs = 0;  // stop after this many epochs from epoch 0; 0: never
};

// One forward pass' worth of samples. Valid until the Loader's next Next().
struct Batch {
  const float* images = nullptr;      // [rows capacity, channels, image_size, image_size] NCHW, normalised
  const std::byte* packed = nullptr;  // in place of images: see SampleImages (kernels/ops/images.h)
  size_t packed_bytes = 0;
  PixelScales scales;               // of a packed batch
  const int32_t* labels = nullptr;  // [rows capacity]; -1 beyond `rows`
  // [rows capacity] what a sample's partner has of it: its share of the loss belongs to the partner's label.
  const int32_t* partner_labels = nullptr;
  const float* partner_weights = nullptr;
  const uint64_t* samples = nullptr;  // [rows capacity] index in the dataset
  int64_t rows = 0;  // rows that count. The others repeat real samples (batch norm reads them), with label -1
  uint32_t epoch = 0;
  int64_t batch = 0;           // global batch within the epoch
  int64_t global_rows = 0;     // samples of this global batch over all ranks and micro-batches
  int micro = 0, micros = 1;   // this is micro-batch `micro` of `micros` of the rank's share; `micros` is the
                               // same on all ranks
  bool last_in_epoch = false;  // of the epoch's last global batch
  double wait_ms = 0;          // how long Next() blocked
};

class Loader {
 public:
  virtual ~Loader() = default;
  // The next batch in order. OutOfRange after the last epoch; DataLoss etc. from Dataset::Read, at the batch
  // it concerns.
  virtual absl::StatusOr<Batch> Next() = 0;

  // Of all workers, since the beginning.
  virtual StageTimes times() const = 0;
  virtual int workers() const = 0;  // so far
  // Samples that were replaced so far, by number, each with what was wrong with it.
  virtual std::map<int64_t, std::string> bad_samples() const = 0;
};

// The most that a packed batch takes. Windows of more than four times the output's pixels, where images
// differ in size, are brought to size by the loader's threads and packed after that, rounded to 8 bits.
size_t PackedBatchBytes(const DatasetInfo& info, const LoaderOptions& options);

// `dataset` must outlive the loader. InvalidArgument: global_batch < world, no samples, sizes not positive,
// channels that do not match.
absl::StatusOr<std::unique_ptr<Loader>> MakeLoader(const Dataset& dataset, const LoaderOptions& options);

}  // namespace deeper
