#include "data/image/trivial_augment.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <vector>

namespace deeper {
namespace {

using Table = std::array<uint8_t, 256>;  // of new values
using Histogram = std::array<int64_t, 256>;

size_t Offset(const Image& image, int row, int column) {
  return (static_cast<size_t>(row) * static_cast<size_t>(image.width) + static_cast<size_t>(column)) *
         static_cast<size_t>(image.channels);
}

// Pixel (x, y) takes the nearest one to (a x + b y + c, d x + e y + f), in fixed point as Pillow does.
struct Affine {
  double a = 1, b = 0, c = 0, d = 0, e = 1, f = 0;
};

void Move(const Affine& m, Image* image) {
  const auto fix = [](double value) { return static_cast<int64_t>(std::floor(value * 65536 + 0.5)); };
  const Image from = *image;
  std::ranges::fill(image->pixels, uint8_t{0});
  for (int y = 0; y < from.height; ++y) {
    int64_t source_x = fix(m.c + m.a * 0.5 + m.b * 0.5) + y * fix(m.b);
    int64_t source_y = fix(m.f + m.d * 0.5 + m.e * 0.5) + y * fix(m.e);
    for (int x = 0; x < from.width; ++x, source_x += fix(m.a), source_y += fix(m.d)) {
      const int64_t column = source_x >> 16, row = source_y >> 16;
      if (column < 0 || column >= from.width || row < 0 || row >= from.height) continue;
      std::copy_n(&from.pixels[Offset(from, static_cast<int>(row), static_cast<int>(column))], from.channels,
                  &image->pixels[Offset(*image, y, x)]);
    }
  }
}

Affine Rotation(double degrees, const Image& image) {
  const double angle = -degrees * std::numbers::pi / 180;
  const auto rounded = [](double value) { return std::round(value * 1e15) / 1e15; };
  const double cosine = rounded(std::cos(angle)), sine = rounded(std::sin(angle));
  const double x = image.width / 2.0, y = image.height / 2.0;
  return {cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y};
}

// Extrapolates beyond `from` and `to` for factors outside 0..1.
uint8_t Blend(int from, int to, float factor) {
  const float value = static_cast<float>(from) + factor * static_cast<float>(to - from);
  return static_cast<uint8_t>(std::clamp(value, 0.0f, 255.0f));
}

void ApplyTable(const Table& table, int channel, Image* image) {
  const auto step = static_cast<size_t>(image->channels);
  for (size_t i = static_cast<size_t>(channel); i < image->pixels.size(); i += step)
    image->pixels[i] = table[image->pixels[i]];
}

template <class ValueOf>
void MapValues(Image* image, const ValueOf& value_of) {
  Table table;
  for (int i = 0; i < 256; ++i) table[static_cast<size_t>(i)] = static_cast<uint8_t>(value_of(i));
  for (int channel = 0; channel < image->channels; ++channel) ApplyTable(table, channel, image);
}

int GreyOf(const uint8_t* rgb) {
  return (rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16;
}

void ChangeColor(float factor, Image* image) {
  if (image->channels == 1) return;
  for (size_t i = 0; i < image->pixels.size(); i += 3) {
    const int grey = GreyOf(&image->pixels[i]);
    for (size_t c = i; c < i + 3; ++c) image->pixels[c] = Blend(grey, image->pixels[c], factor);
  }
}

void ChangeContrast(float factor, Image* image) {
  int64_t sum = 0;
  const auto step = static_cast<size_t>(image->channels);
  for (size_t i = 0; i < image->pixels.size(); i += step)
    sum += step == 1 ? image->pixels[i] : GreyOf(&image->pixels[i]);
  const auto pixels = static_cast<int64_t>(image->pixels.size() / step);
  const int mean = static_cast<int>((2 * sum + pixels) / (2 * pixels));  // rounded, a half up
  MapValues(image, [&](int value) { return Blend(mean, value, factor); });
}

// The smooth image is a 3 x 3 mean in which the middle counts five times. The border stays.
void ChangeSharpness(float factor, Image* image) {
  const Image from = *image;
  const int channels = from.channels;
  for (int y = 1; y + 1 < from.height; ++y) {
    for (int x = 1; x + 1 < from.width; ++x) {
      for (int c = 0; c < channels; ++c) {
        const size_t at = Offset(from, y, x) + static_cast<size_t>(c);
        int sum = 4 * from.pixels[at];
        for (int dy = -1; dy <= 1; ++dy)
          for (int dx = -1; dx <= 1; ++dx)
            sum += from.pixels[Offset(from, y + dy, x + dx) + static_cast<size_t>(c)];
        image->pixels[at] = Blend((2 * sum + 13) / 26, from.pixels[at], factor);
      }
    }
  }
}

Histogram CountValues(const Image& image, int channel) {
  Histogram counts{};
  const auto step = static_cast<size_t>(image.channels);
  for (size_t i = static_cast<size_t>(channel); i < image.pixels.size(); i += step) ++counts[image.pixels[i]];
  return counts;
}

// The smallest value becomes 0, the largest 255.
Table AutoContrast(const Histogram& counts) {
  Table table;
  const auto used = [](int64_t count) { return count > 0; };
  const auto low = static_cast<int>(std::ranges::find_if(counts, used) - counts.begin());
  const auto high =
      255 - static_cast<int>(std::find_if(counts.rbegin(), counts.rend(), used) - counts.rbegin());
  for (int i = 0; i < 256; ++i) {
    const double scale = 255.0 / std::max(1, high - low);
    const double value = high <= low ? i : i * scale + -low * scale;
    table[static_cast<size_t>(i)] = static_cast<uint8_t>(std::clamp(value, 0.0, 255.0));
  }
  return table;
}

// Each value becomes as large as the share of the pixels below it.
Table Equalize(const Histogram& counts) {
  Table table;
  int64_t sum = 0, last = 0;
  for (const int64_t count : counts) {
    sum += count;
    if (count > 0) last = count;
  }
  const int64_t step = (sum - last) / 255;
  int64_t below = step / 2;
  for (size_t i = 0; i < table.size(); ++i) {
    table[i] =
        static_cast<uint8_t>(step == 0 ? static_cast<int64_t>(i) : std::min<int64_t>(255, below / step));
    below += counts[i];
  }
  return table;
}

}  // namespace

TrivialChange MakeTrivialChange(TrivialOp op, int strength, bool negative) {
  const double share = static_cast<double>(strength) / (kTrivialStrengths - 1), sign = negative ? -1 : 1;
  switch (op) {
    case TrivialOp::kShearX:
    case TrivialOp::kShearY:
    case TrivialOp::kBrightness:
    case TrivialOp::kColor:
    case TrivialOp::kContrast:
    case TrivialOp::kSharpness:
      return {op, sign * 0.99 * share};
    case TrivialOp::kTranslateX:
    case TrivialOp::kTranslateY:
      return {op, sign * std::floor(32 * share)};
    case TrivialOp::kRotate:
      return {op, sign * 135 * share};
    case TrivialOp::kPosterize:
      return {op, 8 - std::nearbyint(6 * share)};
    case TrivialOp::kSolarize:
      return {op, 255 - 8.5 * strength};
    case TrivialOp::kIdentity:
    case TrivialOp::kAutoContrast:
    case TrivialOp::kEqualize:
      break;
  }
  return {op, 0};
}

TrivialChange DrawTrivialChange(Rng rng) {
  const auto op = static_cast<TrivialOp>(rng.NextBelow(kTrivialOps));
  const int strength = static_cast<int>(rng.NextBelow(kTrivialStrengths));
  return MakeTrivialChange(op, strength, rng.Next() >> 31);
}

void Apply(const TrivialChange& change, Image* image) {
  const double magnitude = change.magnitude;
  const auto factor = static_cast<float>(1 + magnitude);
  switch (change.op) {
    case TrivialOp::kIdentity:
      return;
    case TrivialOp::kShearX:
      return Move({.b = magnitude}, image);
    case TrivialOp::kShearY:
      return Move({.d = magnitude}, image);
    case TrivialOp::kTranslateX:
      return Move({.c = -magnitude}, image);
    case TrivialOp::kTranslateY:
      return Move({.f = -magnitude}, image);
    case TrivialOp::kRotate:
      return Move(Rotation(magnitude, *image), image);
    case TrivialOp::kBrightness:
      return MapValues(image, [&](int value) { return Blend(0, value, factor); });
    case TrivialOp::kColor:
      return ChangeColor(factor, image);
    case TrivialOp::kContrast:
      return ChangeContrast(factor, image);
    case TrivialOp::kSharpness:
      return ChangeSharpness(factor, image);
    case TrivialOp::kPosterize:
      return MapValues(image, [&](int value) { return value & -(1 << (8 - static_cast<int>(magnitude))); });
    case TrivialOp::kSolarize:
      return MapValues(image, [&](int value) { return value < magnitude ? value : 255 - value; });
    case TrivialOp::kAutoContrast:
    case TrivialOp::kEqualize:
      for (int channel = 0; channel < image->channels; ++channel) {
        const Histogram counts = CountValues(*image, channel);
        ApplyTable(change.op == TrivialOp::kEqualize ? Equalize(counts) : AutoContrast(counts), channel,
                   image);
      }
  }
}

}  // namespace deeper
