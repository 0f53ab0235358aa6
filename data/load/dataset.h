// A split of labelled images: anything the loader can stream (read_shards.h, synthetic.h, ...).
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
    RETURN_IF_ERROR(Read(index, image));
    choose({image->height, image->width});
    return absl::OkStatus();
  }
  // The size of a sample that is stored as plain pixels, known before it is read; 0 x 0: it is not.
  virtual ImageSize StoredPixels(int64_t /*index*/) const { return {}; }
  // Reads and checks the pixels of such a sample straight to where they belong: overwrites [height, width,
  // channels] bytes. DataLoss as of Read.
  virtual absl::Status ReadPixels(int64_t index, uint8_t* /*pixels*/) const {
    return Unimplemented(Describe(index), " is not stored as pixels");
  }
  // These samples, which lie side by side, will be read soon.
  virtual void ReadAhead(Slice samples) const { (void)samples; }
};

}  // namespace deeper
