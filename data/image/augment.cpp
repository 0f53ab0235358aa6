#include "data/image/augment.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

namespace deeper {
namespace {

Window WholeImage(int height, int width) {
  return {0, 0, static_cast<float>(width), static_cast<float>(height)};
}

Window DrawCrop(int image_size, int height, int width, Rng& rng) {
  const bool larger = std::max(height, width) > image_size;
  const int short_side = larger ? image_size * 8 / 7 : image_size, padding = larger ? 0 : image_size / 8;
  const float ratio = static_cast<float>(short_side) / static_cast<float>(std::min(height, width));
  // Along one axis: draws a whole-pixel offset in the resized, padded image, and converts it to pixels of the
  // original image.
  const auto draw = [&](int extent) {
    const int resized = static_cast<int>(std::lround(static_cast<float>(extent) * ratio));
    const int offset = static_cast<int>(rng.NextBelow(resized + 2 * padding - image_size + 1)) - padding;
    const float scale = static_cast<float>(extent) / static_cast<float>(resized);
    return std::pair(static_cast<float>(offset) * scale, static_cast<float>(image_size) * scale);
  };
  const auto [x, window_width] = draw(width);
  const auto [y, window_height] = draw(height);
  return {x, y, window_width, window_height};
}

constexpr float kMinArea = 0.08f, kMinAspect = 3.0f / 4, kMaxAspect = 4.0f / 3;

// The largest allowed window in the middle, for images so narrow that no attempt fitted.
Window CentralWindow(int height, int width) {
  const float h = static_cast<float>(height), w = static_cast<float>(width);
  const float window_width = std::min(w, h * kMaxAspect), window_height = std::min(h, w / kMinAspect);
  return {(w - window_width) / 2, (h - window_height) / 2, window_width, window_height};
}

Window DrawInception(int height, int width, Rng& rng) {
  constexpr int kAttempts = 10;
  const float pixels = static_cast<float>(height) * static_cast<float>(width);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const float area = pixels * (kMinArea + (1 - kMinArea) * rng.NextUnit());
    const float aspect = kMinAspect * std::pow(kMaxAspect / kMinAspect, rng.NextUnit());
    const int w = static_cast<int>(std::lround(std::sqrt(area * aspect)));
    const int h = static_cast<int>(std::lround(std::sqrt(area / aspect)));
    if (w < 1 || h < 1 || w > width || h > height) continue;
    const float x = static_cast<float>(rng.NextBelow(width - w + 1));
    const float y = static_cast<float>(rng.NextBelow(height - h + 1));
    return {x, y, static_cast<float>(w), static_cast<float>(h)};
  }
  return CentralWindow(height, width);
}

// The middle of an image resized to resized_height x resized_width. Rounds halves to even, as Python does.
Window MiddleOf(int image_size, int height, int width, int resized_height, int resized_width) {
  const auto middle = [image_size](int extent, int resized) {
    const float scale = static_cast<float>(extent) / static_cast<float>(resized);
    const float origin = std::nearbyint(static_cast<float>(resized - image_size) / 2) * scale;
    return std::pair(origin, static_cast<float>(image_size) * scale);
  };
  const auto [x, window_width] = middle(width, resized_width);
  const auto [y, window_height] = middle(height, resized_height);
  return {x, y, window_width, window_height};
}

// The weights of R, G and B in grey (Rec. 601, as in Pillow).
constexpr float kLuma[3] = {0.299f, 0.587f, 0.114f};

// Every channel becomes keep * itself + luma * grey + offset.
ColorMatrix Blend(float keep, float luma, float offset) {
  ColorMatrix matrix;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) matrix.m[i][j] = (i == j ? keep : 0) + luma * kLuma[j];
    matrix.m[i][3] = offset;
  }
  return matrix;
}

// Uniform in (0, 1], for logarithms.
double NextPositive(Rng& rng) {
  return 1 - double{rng.NextUnit()};
}

// Beta(alpha, alpha) by Joehnk's method (1964): U^(1/alpha) / (U^(1/alpha) + V^(1/alpha)) if the sum is at
// most 1. Works with logarithms, since the powers underflow for a small alpha.
double DrawBeta(double alpha, Rng& rng) {
  while (true) {
    const double x = std::log(NextPositive(rng)) / alpha, y = std::log(NextPositive(rng)) / alpha;
    if (std::exp(x) + std::exp(y) <= 1) return 1 / (1 + std::exp(y - x));
  }
}

// A square with this share of the output's area around a random centre, clipped at the edges.
PixelRect DrawPasted(double share, int image_size, Rng& rng) {
  const int half = static_cast<int>(image_size * std::sqrt(share)) / 2;
  const auto draw = [&] {
    const int centre = static_cast<int>(rng.NextBelow(static_cast<uint32_t>(image_size)));
    const int32_t first = std::max(0, centre - half);
    return std::pair(first, std::min(image_size, centre + half) - first);
  };
  const auto [x, width] = draw();
  const auto [y, height] = draw();
  return {x, y, width, height};
}

}  // namespace

Window DrawWindow(Augment augment, int image_size, int height, int width, Rng rng) {
  const bool flip = rng.Next() >> 31;
  const int side = image_size * 8 / 7;  // 256 for 224
  Window window;
  switch (augment) {
    case Augment::kNone:
      return WholeImage(height, width);
    case Augment::kTorchvision: {
      const int64_t shorter = std::min(height, width);
      const auto resized = [&](int extent) { return static_cast<int>(int64_t{side} * extent / shorter); };
      return MiddleOf(image_size, height, width, resized(height), resized(width));
    }
    case Augment::kBvlc:
      return MiddleOf(image_size, height, width, side, side);
    case Augment::kFlip:
      window = WholeImage(height, width);
      break;
    case Augment::kCrop:
      window = DrawCrop(image_size, height, width, rng);
      break;
    case Augment::kInception:
      window = DrawInception(height, width, rng);
      break;
  }
  window.flip = flip;
  return window;
}

bool DrawAlternateFlip(Rng rng, uint32_t epoch) {
  return (rng.Next() >> 31) != (epoch & 1);
}

ColorMatrix DrawColor(double strength, float grey, Rng rng) {
  if (strength == 0) return {};
  const auto factor = [&] { return static_cast<float>(1 + strength * (2 * double{rng.NextUnit()} - 1)); };
  const float brightness = factor(), contrast = factor(), saturation = factor();
  const ColorMatrix darken = Blend(brightness, 0, 0), flatten = Blend(contrast, 0, (1 - contrast) * grey);
  const bool darken_first = rng.Next() >> 31;  // saturation commutes with both
  const ColorMatrix shade = darken_first ? Compose(flatten, darken) : Compose(darken, flatten);
  return Compose(Blend(saturation, 1 - saturation, 0), shade);
}

// The last row of both is 0 0 0 1.
ColorMatrix Compose(const ColorMatrix& a, const ColorMatrix& b) {
  ColorMatrix product;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 4; ++j) {
      product.m[i][j] = j == 3 ? a.m[i][3] : 0;
      for (int k = 0; k < 3; ++k) product.m[i][j] += a.m[i][k] * b.m[k][j];
    }
  }
  return product;
}

ColorMatrix DrawLighting(double deviation, Rng rng) {
  // In grey levels. These are the values of fb.resnet.torch and GluonCV.
  constexpr double kDeviations[3] = {55.46, 4.794, 1.148};
  constexpr double kComponents[3][3] = {
      {-0.5675, 0.7192, 0.4009}, {-0.5808, -0.0045, -0.8140}, {-0.5836, -0.6948, 0.4203}};
  ColorMatrix matrix;
  if (deviation == 0) return matrix;
  for (int k = 0; k < 3; ++k) {
    // Box and Muller 1958
    const double radius = std::sqrt(-2 * std::log(NextPositive(rng)));
    const double normal = radius * std::cos(2 * std::numbers::pi * double{rng.NextUnit()});
    for (int c = 0; c < 3; ++c)
      matrix.m[c][3] += static_cast<float>(kComponents[c][k] * kDeviations[k] * deviation * normal);
  }
  return matrix;
}

PixelRect DrawErased(double probability, int image_size, Rng rng) {
  constexpr int kAttempts = 10;
  constexpr double kLeastArea = 0.02, kMostArea = 0.33, kLeastAspect = 0.3, kMostAspect = 3.3;
  if (double{rng.NextUnit()} >= probability) return {};
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const double area = double{1} * image_size * image_size *
                        (kLeastArea + (kMostArea - kLeastArea) * double{rng.NextUnit()});
    const double aspect = kLeastAspect * std::pow(kMostAspect / kLeastAspect, double{rng.NextUnit()});
    const int width = static_cast<int>(std::lround(std::sqrt(area / aspect)));
    const int height = static_cast<int>(std::lround(std::sqrt(area * aspect)));
    if (width >= image_size || height >= image_size) continue;
    const auto place = [&](int extent) {
      return static_cast<int32_t>(rng.NextBelow(static_cast<uint32_t>(image_size - extent + 1)));
    };
    const int32_t x = place(width), y = place(height);
    return {x, y, width, height};
  }
  return {};
}

Mix DrawMix(double mixup, double cutmix, int image_size, Rng rng) {
  const bool second = rng.Next() >> 31;
  if (cutmix == 0 || (mixup > 0 && second)) return {static_cast<float>(DrawBeta(mixup, rng)), {}};
  const PixelRect pasted = DrawPasted(DrawBeta(cutmix, rng), image_size, rng);
  const double area = double{1} * pasted.width * pasted.height;
  return {static_cast<float>(area / (double{1} * image_size * image_size)), pasted};
}

}  // namespace deeper
