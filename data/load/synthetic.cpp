#include "data/load/synthetic.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/base/check.h"
#include "kernels/base/parallel.h"
#include "kernels/base/rng.h"

namespace deeper {
namespace {

// A class is a mosaic of kTiles x kTiles colours in [kDarkest, kDarkest + kColours). The added noise in
// [-kNoise, kNoise) needs no clipping.
constexpr int kTiles = 4, kDarkest = 32, kColours = 192, kNoise = 32;
// Each row takes its noise from a random offset in one table: one draw per row, not per pixel.
constexpr int kNoiseOffsets = 1 << 16;

DEEPER_SIMD void AddNoise(const uint8_t* mosaic, const uint8_t* noise, int64_t count, uint8_t* pixels) {
  for (int64_t i = 0; i < count; ++i) pixels[i] = static_cast<uint8_t>(mosaic[i] + noise[i]);
}

class SyntheticDataset : public Dataset {
 public:
  explicit SyntheticDataset(const SyntheticOptions& options) : options_(options) {
    DEEPER_CHECK(options.samples > 0 && options.classes > 0 && options.height > 0 && options.width > 0);
    DEEPER_CHECK(options.channels == 1 || options.channels == 3);
    info_.uuid = absl::StrFormat("synthetic-%d-%dx%dx%d-%d-%d", options.samples, options.channels,
                                 options.height, options.width, options.classes, options.seed);
    info_.split = "synthetic";
    info_.samples = options.samples;
    info_.channels = options.channels;
    info_.height = options.height;
    info_.width = options.width;
    for (int i = 0; i < options.classes; ++i) info_.classes.push_back(absl::StrCat("class", i));
    // Mean and standard deviation of the sum of two uniform variables.
    info_.stats = {std::vector<float>(options.channels, 0.498f),
                   std::vector<float>(options.channels, 0.229f)};
    MakeColours();
    MakeNoise();
  }

  const DatasetInfo& info() const override { return info_; }
  int32_t label(int64_t index) const override { return static_cast<int32_t>(index % options_.classes); }
  std::string Describe(int64_t index) const override { return absl::StrCat("synthetic sample ", index); }

  absl::Status Read(int64_t index, Image* image) const override {
    const int64_t row_bytes = int64_t{options_.width} * options_.channels;
    image->height = options_.height;
    image->width = options_.width;
    image->channels = options_.channels;
    image->pixels.resize(row_bytes * options_.height);
    std::vector<uint8_t> mosaic(row_bytes);
    Rng rng(options_.seed, RandomStream("synthetic.sample"), 0, index);
    for (int y = 0, tile_row = -1; y < options_.height; ++y) {
      if (y * kTiles / options_.height != tile_row) {
        tile_row = y * kTiles / options_.height;
        FillMosaicRow(label(index), tile_row, mosaic.data());
      }
      const uint8_t* noise = noise_.data() + rng.NextBelow(kNoiseOffsets);
      AddNoise(mosaic.data(), noise, row_bytes, image->pixels.data() + y * row_bytes);
    }
    return absl::OkStatus();
  }

 private:
  // Depends on the class alone: two seeds give a training and a validation split of the same task.
  void MakeColours() {
    const int per_class = kTiles * kTiles * options_.channels;
    for (int c = 0; c < options_.classes; ++c) {
      Rng rng(0, RandomStream("synthetic.class"), 0, c);
      for (int i = 0; i < per_class; ++i)
        colours_.push_back(static_cast<uint8_t>(kDarkest + rng.NextBelow(kColours)));
    }
  }

  void MakeNoise() {
    Rng rng(options_.seed, RandomStream("synthetic.noise"), 0, 0);
    noise_.resize(kNoiseOffsets + size_t{1} * options_.width * options_.channels);
    for (uint8_t& n : noise_) n = static_cast<uint8_t>(rng.NextBelow(2 * kNoise) - kNoise);
  }

  void FillMosaicRow(int32_t label, int tile_row, uint8_t* row) const {
    const uint8_t* colours =
        colours_.data() + (int64_t{label} * kTiles + tile_row) * kTiles * options_.channels;
    for (int x = 0; x < options_.width; ++x) {
      const uint8_t* colour = colours + x * kTiles / options_.width * options_.channels;
      for (int c = 0; c < options_.channels; ++c) *row++ = colour[c];
    }
  }

  SyntheticOptions options_;
  DatasetInfo info_;
  std::vector<uint8_t> colours_;  // [classes, kTiles, kTiles, channels]
  std::vector<uint8_t> noise_;    // modulo 256
};

}  // namespace

std::unique_ptr<Dataset> MakeSyntheticDataset(const SyntheticOptions& options) {
  return std::make_unique<SyntheticDataset>(options);
}

}  // namespace deeper
