// Streams batches: threads read, decode, augment and normalise ahead of the consumer, into a ring of
// preallocated buffers.
//
// The content of a batch is a pure function of (options, position). It does not depend on the number of
// workers, on timing, or on the number of ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

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
  Flip flip = Flip::kRandom;
  bool mirror = false;           // mirrors every image left to right once more
  bool trivial_augment = false;  // changes each image by DrawTrivialChange when it is cut and resized
  double pca_noise = 0;          // of DrawLighting; for RGB
  // Arguments of DrawColor, DrawErased and DrawMix; 0 disables each. The samples at positions 2i and 2i + 1
  // of an epoch are partners, for any batches and ranks; the last of an odd number has none. A batch whose
  // bounds separate two partners reads the other one too.
  double color_jitter = 0, random_erasing = 0, mixup = 0, cutmix = 0;
  bool bgr = false;  // 3 output channels in this order, also in stats
  OrderKind order = OrderKind::kFull;
  uint64_t seed = 0;
  int64_t global_batch = 256;
  int64_t rows = 0;  // rows of a Batch: a rank's share of a global batch is ceil(share / rows) batches,
                     // at least one
  int rank = 0, world = 1;
  // 0, or a multiple of `world`. Cuts the global batch into this many slices; a rank gets slices / world of
  // them, one batch each (of at most `rows`). Batches are then the same for any number of ranks.
  int slices = 0;
  // Threads that fill batches. 0: starts with one and adds one for every batch that the consumer had to wait
  // for, up to `max_workers`.
  int workers = 2;
  int max_workers = AvailableCores();
  // How many samples of this rank may be unreadable (DataLoss). Each is replaced by the next readable sample
  // of the split, the same one on every rank and in every epoch.
  int64_t allow_bad = 0;
  int prefetch = 3;  // batches in the ring
  // Batches contain decoded pixels and instructions for SampleImages to finish them (Batch::packed), instead
  // of normalised images.
  bool packed = false;
  std::function<Buffer(size_t)> allocate = AllocateHost;  // for the ring, e.g. Device::AllocateStaging
  // Start at global batch `first_batch` of `first_epoch`.
  uint32_t first_epoch = 0;
  int64_t first_batch = 0;
  uint32_t epochs = 0;  // end after this many, counted from epoch 0; 0: never
};

// The samples of one forward pass. Valid until the Loader's next Next().
struct Batch {
  const float* images = nullptr;      // [rows capacity, channels, image_size, image_size] NCHW, normalised
  const std::byte* packed = nullptr;  // instead of images; see SampleImages (kernels/ops/images.h)
  size_t packed_bytes = 0;
  int64_t packed_entries = 0;       // PackedImages at its start
  PixelScales scales;               // of a packed batch
  const int32_t* labels = nullptr;  // [rows capacity]; -1 beyond `rows`
  // [rows capacity] The partner's label, and its share of the sample's loss.
  const int32_t* partner_labels = nullptr;
  const float* partner_weights = nullptr;
  const uint64_t* samples = nullptr;  // [rows capacity] index in the dataset
  int64_t rows = 0;  // rows that count; the others repeat real samples, for batch norm, with label -1
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
  // The next batch in order. OutOfRange after the last epoch. Errors of Dataset::Read appear at their batch;
  // its OutOfRange becomes DataLoss.
  virtual absl::StatusOr<Batch> Next() = 0;

  // Total of all workers, since the start.
  virtual StageTimes times() const = 0;
  virtual int workers() const = 0;  // so far
  // The samples replaced so far: number, and why each could not be read.
  virtual std::map<int64_t, std::string> bad_samples() const = 0;
};

// The largest size of a packed batch. Where images differ in size, the loader's threads resize windows of
// more than four times the output's pixels before packing them, and round to 8 bits.
size_t PackedBatchBytes(const DatasetInfo& info, const LoaderOptions& options);

struct ByteRange {
  size_t begin = 0, end = 0;
};
// The parts of a packed batch that SampleImages reads, in order. Where images differ in size, most have less
// than the space of the largest. Parts with a small gap between them are one.
std::vector<ByteRange> UsedParts(const Batch& batch);

// `dataset` must outlive the loader. InvalidArgument: no samples, sizes not positive, channels that do not
// match. With more ranks than images in a batch, some ranks have none.
absl::StatusOr<std::unique_ptr<Loader>> MakeLoader(const Dataset& dataset, const LoaderOptions& options);

}  // namespace deeper
