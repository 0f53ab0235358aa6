// Converts a source's sample to the bytes that a shard stores.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/load/dataset.h"
#include "data/pack/pack.h"
#include "data/sources/source.h"

namespace deeper {

// Exact sums: the order in which threads add to them does not matter.
struct PixelSums {
  uint64_t pixels = 0;
  std::array<uint64_t, 3> sum = {}, squares = {};

  void Add(const Image& image);
  void Add(const PixelSums& other);
  PixelStats Stats(int channels) const;
};

struct StoredSample {
  std::vector<uint8_t> bytes;
  int height = 0, width = 0;
  uint16_t flags = 0;
  PixelSums sums;
  std::string note;  // of DecodeImage
};

// Loads sample `i`; decodes, resizes and encodes it as `options` say. With decode = false, a file that is
// stored unchanged is not decoded; then only `bytes` and `flags` are set. After an error, leave the sample
// out.
absl::StatusOr<StoredSample> EncodeSample(const ImageSource& source, int64_t i, const PackOptions& options,
                                          bool decode);

}  // namespace deeper
