#include "data/load/sample_maker.h"

#include <algorithm>
#include <utility>

#include "data/image/augment.h"
#include "data/image/resize.h"
#include "data/image/trivial_augment.h"
#include "data/load/stage_clock.h"
#include "kernels/base/status.h"
#include "kernels/base/tensor.h"

namespace deeper {
namespace {

constexpr size_t kPackedAlignment = 64;  // of the parts of a packed batch
constexpr size_t kSmallGap = 4096;       // costs less to copy than another copy

bool Mixes(const LoaderOptions& options) {
  return options.mixup > 0 || options.cutmix > 0;
}

// Sizes in a packed batch: the header before the pixels, and the pixel space of one entry.
size_t PackedHeaderBytes(const LoaderOptions& options) {
  return RoundUp(static_cast<size_t>(PackedEntries(options)) * sizeof(PackedImage), kPackedAlignment);
}
size_t PackedImageBytes(const DatasetInfo& info, const LoaderOptions& options) {
  const int64_t output = int64_t{options.image_size} * options.image_size;
  const int64_t pixels = options.trivial_augment ? output
                         : info.height > 0       ? int64_t{info.height} * info.width
                                                 : 4 * output;
  return RoundUp(static_cast<size_t>(pixels * info.channels), kPackedAlignment);
}

}  // namespace

size_t PackedBatchBytes(const DatasetInfo& info, const LoaderOptions& options) {
  return PackedHeaderBytes(options) +
         static_cast<size_t>(PackedEntries(options)) * PackedImageBytes(info, options);
}

int64_t PackedEntries(const LoaderOptions& options) {
  return options.rows + (Mixes(options) ? 2 : 0);
}

std::vector<ByteRange> UsedParts(const Batch& batch) {
  const auto* const entries = reinterpret_cast<const PackedImage*>(batch.packed);
  const auto count = static_cast<size_t>(batch.packed_entries);
  std::vector<ByteRange> parts = {{0, count * sizeof(PackedImage)}};
  for (size_t i = 0; i < count; ++i) {
    const auto begin = static_cast<size_t>(entries[i].offset);
    const int64_t bytes = int64_t{entries[i].height} * entries[i].width * entries[i].channels;
    const bool repeats = begin < parts.back().end;  // an earlier image, or none
    if (repeats) continue;
    if (begin - parts.back().end > kSmallGap) parts.push_back({begin, begin});
    parts.back().end = begin + static_cast<size_t>(bytes);
  }
  return parts;
}

absl::Status SampleMaker::FillRow(BatchInMaking& batch, int64_t row, Scratch& scratch) {
  const BatchPlan& plan = batch.plan;
  const int64_t position = plan.first + row, partner = Mixes(options_) ? position ^ 1 : position;
  EnterStage(Stage::kRead);
  dataset_.ReadAhead(OrderOf(plan).ReadAhead(position));
  if (partner == position || partner >= dataset_.info().samples) {
    ASSIGN_OR_RETURN(const int64_t sample, Prepare(batch, position, row, scratch));
    Finish(batch, row, sample, sample, 0);
    return absl::OkStatus();
  }
  const int64_t partner_row = partner - plan.first;
  const bool together = partner_row >= 0 && partner_row < plan.distinct;
  if (together && partner_row < row) return absl::OkStatus();
  const int64_t entry = together ? partner_row : options_.rows + (partner_row > row ? 1 : 0);
  ASSIGN_OR_RETURN(const int64_t own, Prepare(batch, position, row, scratch));
  ASSIGN_OR_RETURN(const int64_t other, Prepare(batch, partner, entry, scratch));
  const Mix mix = DrawMix(options_.mixup, options_.cutmix, options_.image_size,
                          Draws("mix", plan, OrderOf(plan).At(std::min(position, partner))));
  MixEntries(batch, mix, row, entry, scratch);
  Finish(batch, row, own, other, mix.weight);
  if (together) Finish(batch, partner_row, other, own, mix.weight);
  return absl::OkStatus();
}

// Reads the sample at `position` of the epoch, or the next readable one, into entry `entry`, without mixing.
// Returns the sample's index.
absl::StatusOr<int64_t> SampleMaker::Prepare(BatchInMaking& batch, int64_t position, int64_t entry,
                                             Scratch& scratch) {
  int64_t sample = OrderOf(batch.plan).At(position);
  absl::Status prepared = PrepareSample(batch, sample, entry, scratch);
  while (absl::IsDataLoss(prepared) && options_.allow_bad > 0) {
    if (!MayReplace(sample, prepared)) {
      return DataLoss(prepared.message(),
                      "; there are more bad samples than --allow_bad=", options_.allow_bad);
    }
    sample = (sample + 1) % dataset_.info().samples;
    prepared = PrepareSample(batch, sample, entry, scratch);
  }
  RETURN_IF_ERROR(prepared);
  return sample;
}

// Also counts the bad sample.
bool SampleMaker::MayReplace(int64_t sample, const absl::Status& status) {
  const std::lock_guard lock(mutex_);
  bad_.emplace(sample, status.message());
  return std::ssize(bad_) <= std::min(options_.allow_bad, dataset_.info().samples - 1);
}

// Brings one sample from disk to its place in the batch.
absl::Status SampleMaker::PrepareSample(BatchInMaking& batch, int64_t sample, int64_t entry,
                                        Scratch& scratch) const {
  const int size = options_.image_size;
  Sampling sampling;
  sampling.filter = FilterOf(options_.augment);
  sampling.color = Compose(DrawLighting(options_.pca_noise, Draws("pca", batch.plan, sample)),
                           DrawColor(options_.color_jitter, grey_, Draws("color", batch.plan, sample)));
  if (options_.bgr) std::swap(sampling.color.m[0], sampling.color.m[2]);
  sampling.erased = DrawErased(options_.random_erasing, size, Draws("erase", batch.plan, sample));
  const auto choose = [&](ImageSize image) {
    sampling.window =
        DrawWindow(options_.augment, size, image.height, image.width, Draws("augment", batch.plan, sample));
    if (options_.flip == Flip::kAlternate && MirrorsHalf(options_.augment)) {
      const Rng of_every_epoch(options_.seed, RandomStream("flip"), 0, static_cast<uint64_t>(sample));
      sampling.window.flip = DrawAlternateFlip(of_every_epoch, batch.plan.batch.epoch);
    }
    sampling.window.flip ^= options_.mirror;
    return PixelsOf(sampling.window, sampling.filter, size, size, image);
  };
  EnterStage(Stage::kRead);
  const bool direct = options_.packed && !options_.trivial_augment;
  const ImageSize stored = direct ? dataset_.StoredPixels(sample) : ImageSize{};
  if (FitsItsPlace(stored)) {  // directly into the batch, always the whole image
    choose(stored);
    return dataset_.ReadPixels(sample, Place(batch, entry, stored, sampling));
  }
  RETURN_IF_ERROR(dataset_.ReadPart(sample, choose, &scratch.image));
  EnterStage(Stage::kAugment);
  sampling.window.x -= static_cast<float>(scratch.image.x);
  sampling.window.y -= static_cast<float>(scratch.image.y);
  if (options_.trivial_augment) {
    Cut(sampling, &scratch.image);
    Apply(DrawTrivialChange(Draws("trivial", batch.plan, sample)), &scratch.image);
  }
  if (options_.packed) {
    Pack(batch, entry, sampling, &scratch.image);
  } else {
    SampleImage(scratch.image, sampling, scales_.data(), options_.channels, size, size,
                Pixels(batch, entry, scratch));
  }
  return absl::OkStatus();
}

// Place of an entry that is not packed.
float* SampleMaker::Pixels(BatchInMaking& batch, int64_t entry, Scratch& scratch) const {
  if (entry < options_.rows) return batch.images.as<float>() + entry * image_elements_;
  scratch.partner.resize(static_cast<size_t>(image_elements_));
  return scratch.partner.data();
}

// Whether an image of this size fits the space of a packed entry; false for 0 x 0.
bool SampleMaker::FitsItsPlace(ImageSize size) const {
  const auto bytes = static_cast<size_t>(int64_t{size.height} * size.width * dataset_.info().channels);
  return bytes > 0 && bytes <= PackedImageBytes(dataset_.info(), options_);
}

// Adds an image to a packed batch; returns the place for its pixels.
uint8_t* SampleMaker::Place(BatchInMaking& batch, int64_t entry, ImageSize image,
                            const Sampling& sampling) const {
  const size_t offset =
      PackedHeaderBytes(options_) + static_cast<size_t>(entry) * PackedImageBytes(dataset_.info(), options_);
  batch.images.as<PackedImage>()[entry] = {static_cast<int64_t>(offset), image.height, image.width,
                                           dataset_.info().channels, sampling};
  return batch.images.as<uint8_t>() + offset;
}

// Cuts the window out of *image and resizes it, in 8 bits. Parts outside of it get the mean colour.
void SampleMaker::Cut(Sampling& sampling, Image* image) const {
  const int size = options_.image_size;
  float mean[kMaxImageChannels] = {};
  for (int c = 0; c < image->channels; ++c) {
    const PixelScale& scale = scales_[static_cast<size_t>(options_.bgr ? 2 - c : c)];
    mean[c] = std::clamp(-scale.shift / scale.scale, 0.0f, 255.0f);
  }
  *image = ResizeWindow(*image, sampling.window, sampling.filter, size, size, mean);
  sampling.window = {0, 0, static_cast<float>(size), static_cast<float>(size)};
  sampling.filter = Filter::kBilinear;
}

// Copies pixels to their place in a packed batch; resizes *image if it is too large.
void SampleMaker::Pack(BatchInMaking& batch, int64_t entry, Sampling sampling, Image* image) const {
  const int size = options_.image_size;
  if (!FitsItsPlace({image->height, image->width})) {
    *image = ResizeWindow(*image, sampling.window, sampling.filter, size, size);
    sampling.window = {0, 0, static_cast<float>(size), static_cast<float>(size)};
  }
  std::copy(image->pixels.begin(), image->pixels.end(),
            Place(batch, entry, {image->height, image->width}, sampling));
}

void SampleMaker::MixEntries(BatchInMaking& batch, const Mix& mix, int64_t a, int64_t b,
                             Scratch& scratch) const {
  const int size = options_.image_size;
  if (!options_.packed) {
    return MixSamples(mix, options_.channels, size, size, Pixels(batch, a, scratch),
                      Pixels(batch, b, scratch));
  }
  auto* const entries = batch.images.as<PackedImage>();
  entries[a].mix = entries[b].mix = mix;
  entries[a].partner = static_cast<int32_t>(b);
  entries[b].partner = static_cast<int32_t>(a);
}

// Labels row `row`, and copies it to the padding rows that repeat it.
void SampleMaker::Finish(BatchInMaking& batch, int64_t row, int64_t sample, int64_t partner,
                         float weight) const {
  for (int64_t i = row; i < options_.rows; i += batch.plan.distinct) {
    if (i != row && options_.packed) {
      batch.images.as<PackedImage>()[i] = batch.images.as<PackedImage>()[row];
    } else if (i != row) {
      auto* const images = batch.images.as<float>();
      std::copy_n(images + row * image_elements_, image_elements_, images + i * image_elements_);
    }
    batch.labels[i] = i < batch.plan.batch.rows ? dataset_.label(sample) : -1;
    batch.samples[i] = static_cast<uint64_t>(sample);
    batch.partner_labels[i] = dataset_.label(partner);
    batch.partner_weights[i] = weight;
  }
}

}  // namespace deeper
