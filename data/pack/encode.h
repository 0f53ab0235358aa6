// From a source's sample to the bytes a shard stores of it.
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

// Exact, so that the order in which threads add to them does not matter.
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

// Loads sample `i`, decodes, resizes and encodes it as `options` say. With `decode` false a file that is
// stored as it is is not decoded: only `bytes` and `flags` count then. An error is a reason to leave the
// sample out.
absl::StatusOr<StoredSample> EncodeSample(const ImageSource& source, int64_t i, const PackOptions& options,
                                          bool decode);

}  // namespace deeper
