// A split of labelled images: anything the loader can stream. Implementations: packed shards
// (shard_reader.h), synthetic.h.
//
// Thread-safe: many workers call Read at once.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "data/sample_order.h"
#include "data/staging.h"
#include "kernels/images.h"

namespace deeper {

// Per-channel statistics of pixels scaled to [0, 1]; the model sees (x / 255 - mean) / std.
struct PixelStats {
  std::vector<float> mean, stddev;
};

struct DatasetInfo {
  std::string uuid;   // identifies the exact data; a resumed run must see the same one
  std::string split;  // "train", "val", ...
  int64_t samples = 0;
  int channels = 3;                  // 1 or 3
  int height = 0, width = 0;         // of every sample; 0 where they differ
  std::vector<std::string> classes;  // names, by label
  PixelStats stats;
};

struct ImageSize {
  int height = 0, width = 0;
};

// A decoded image or a part of one, HWC, 8 bits a channel.
struct Image {
  int height = 0, width = 0, channels = 0;
  std::vector<uint8_t> pixels;
  int x = 0, y = 0;  // of the top left pixel, in the image that this is a part of
};

// Which part of an image of this size is wanted: not empty, and inside. Called once a read.
using ChoosePart = absl::FunctionRef<PixelRect(ImageSize)>;

class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual const DatasetInfo& info() const = 0;
  // Label of sample `index` in [0, samples), in [0, classes).
  virtual int32_t label(int64_t index) const = 0;
  // Name for messages: shard, index in it, original file.
  virtual std::string Describe(int64_t index) const = 0;
  // Reads, checks and decodes sample `index` into *image (reused buffer, overwritten).
  // DataLoss: the bytes do not match their checksum, or do not decode; names shard, sample and file.
  virtual absl::Status Read(int64_t index, Image* image) const = 0;
  // Likewise a part of it, or more where that is no more work.
  virtual absl::Status ReadPart(int64_t index, ChoosePart choose, Image* image) const {
    if (absl::Status read = Read(index, image); !read.ok()) return read;
    choose({image->height, image->width});
    return absl::OkStatus();
  }
  // The size of a sample that is stored as plain pixels, known before it is read; 0 x 0: it is not.
  virtual ImageSize StoredPixels(int64_t index) const {
    (void)index;
    return {};
  }
  // Reads and checks the pixels of such a sample straight to where they belong: overwrites [height, width,
  // channels] bytes. DataLoss as of Read.
  virtual absl::Status ReadPixels(int64_t index, uint8_t* pixels) const {
    (void)pixels;
    return absl::UnimplementedError(absl::StrCat(Describe(index), " is not stored as pixels"));
  }
  // These samples, which lie side by side, will be read soon.
  virtual void ReadAhead(Slice samples) const { (void)samples; }
};

// Data made up on the spot: sample i is class-dependent low-frequency colour plus noise from the counter RNG,
// so that a model can learn it; needs no files. 50,000 samples unless told otherwise.
struct SyntheticOptions {
  int64_t samples = 50000;
  int channels = 3, height = 256, width = 256;
  int classes = 1000;
  uint64_t seed =
      0;  // of the noise: a class looks the same for every seed, so that two seeds make two splits
};
std::unique_ptr<Dataset> MakeSyntheticDataset(const SyntheticOptions& options);

// Packed shards under `dir` (docs/formats.md). Reading the index of a split opens manifest.json, checks that
// the shards of `split` are all there, of the stated size, of one dataset_uuid, and that their indexes match
// their hash. NotFound / DataLoss / InvalidArgument naming the file and what to do.
//
// The index is 22 bytes a sample: one process of a job reads it, and the others, of the same build, are sent
// it. After that a shard's file is opened when a sample of it is first read. One that was changed or replaced
// by then, or later, is DataLoss when a sample of it is read.
//
// `direct_io`: past the page cache, which a data set larger than memory would only churn; FailedPrecondition
// where the file system cannot. Copies that were staged are read through it.
absl::StatusOr<std::string> ReadSplitIndex(const std::string& dir, const std::string& split);
absl::StatusOr<std::unique_ptr<Dataset>> OpenSplit(const std::string& dir, std::string index,
                                                   const StageOptions& stage = {}, bool direct_io = false);
// Both.
absl::StatusOr<std::unique_ptr<Dataset>> OpenShards(const std::string& dir, const std::string& split);

}  // namespace deeper
