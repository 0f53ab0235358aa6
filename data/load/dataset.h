// A split of labelled images that the loader can stream (read_shards.h, synthetic.h, ...).
//
// Thread-safe: many workers call Read at once.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "data/image/image.h"
#include "data/load/sample_order.h"
#include "kernels/base/status.h"

namespace deeper {

// Per-channel statistics of pixels scaled to [0, 1]. The model's input is (x / 255 - mean) / std.
struct PixelStats {
  std::vector<float> mean, stddev;
};

struct DatasetInfo {
  std::string uuid;   // identifies the exact data; must not change when a run resumes
  std::string split;  // "train", "val", ...
  int64_t samples = 0;
  int channels = 3;                  // 1 or 3
  int height = 0, width = 0;         // of every sample; 0 where they differ
  std::vector<std::string> classes;  // names, by label
  PixelStats stats;
};

class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual const DatasetInfo& info() const = 0;
  // Label in [0, classes) of sample `index` in [0, samples).
  virtual int32_t label(int64_t index) const = 0;
  // Name for messages: shard, index within it, original file.
  virtual std::string Describe(int64_t index) const = 0;
  // Reads, checks and decodes sample `index` into *image (overwritten; its buffer is reused). DataLoss,
  // naming shard, sample and file: the bytes do not match their checksum, or cannot be decoded.
  virtual absl::Status Read(int64_t index, Image* image) const = 0;
  // As Read, but only a part, or more where that costs nothing.
  virtual absl::Status ReadPart(int64_t index, ChoosePart choose, Image* image) const {
    RETURN_IF_ERROR(Read(index, image));
    choose({image->height, image->width});
    return absl::OkStatus();
  }
  // The size of a sample that is stored as plain pixels, without reading it; 0 x 0 for other samples.
  virtual ImageSize StoredPixels(int64_t /*index*/) const { return {}; }
  // Reads and checks the pixels of such a sample directly into `pixels`: overwrites [height, width, channels]
  // bytes. DataLoss as Read.
  virtual absl::Status ReadPixels(int64_t index, uint8_t* /*pixels*/) const {
    return Unimplemented(Describe(index), " is not stored as pixels");
  }
  // Hint: these samples, which are stored consecutively, will be read soon.
  virtual void ReadAhead(Slice samples) const { (void)samples; }
};

}  // namespace deeper
