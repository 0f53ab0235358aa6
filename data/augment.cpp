#include "data/augment.h"

#include <algorithm>
#include <cmath>

namespace deeper {
namespace {

Window WholeImage(int height, int width) {
  return {0, 0, static_cast<float>(width), static_cast<float>(height)};
}

Window DrawCrop(int image_size, int height, int width, Rng& rng) {
  const bool larger = std::max(height, width) > image_size;
  const int short_side = larger ? image_size * 8 / 7 : image_size, padding = larger ? 0 : image_size / 8;
  const float ratio = static_cast<float>(short_side) / static_cast<float>(std::min(height, width));
  // Along one axis: a whole-pixel offset in the resized, padded image, then back to the pixels of the image
  // itself.
  const auto draw = [&](int extent, float* origin, float* size) {
    const int resized = static_cast<int>(std::lround(static_cast<float>(extent) * ratio));
    const int offset = static_cast<int>(rng.NextBelow(resized + 2 * padding - image_size + 1)) - padding;
    const float scale = static_cast<float>(extent) / static_cast<float>(resized);
    *origin = static_cast<float>(offset) * scale;
    *size = static_cast<float>(image_size) * scale;
  };
  Window window;
  draw(width, &window.x, &window.width);
  draw(height, &window.y, &window.height);
  return window;
}

constexpr float kMinArea = 0.08f, kMinAspect = 3.0f / 4, kMaxAspect = 4.0f / 3;

// For images so narrow that no window was found: the largest one in the middle.
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

}  // namespace

Window DrawWindow(Augment augment, int image_size, int height, int width, Rng rng) {
  if (augment == Augment::kNone) return WholeImage(height, width);
  const bool flip = rng.Next() >> 31;
  Window window;
  switch (augment) {
    case Augment::kNone:
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

}  // namespace deeper
