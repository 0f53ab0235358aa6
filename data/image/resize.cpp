#include "data/image/resize.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/parallel.h"

namespace deeper {
namespace {

// How to compute the outputs along one axis from source pixels: output i = sum over k of weight[i * taps + k]
// * source[first[i] + k].
struct Axis {
  int taps = 0;
  int begin = 0, end = 0;                // outputs whose centre lies in the image
  int source_begin = 0, source_end = 0;  // source pixels they read
  std::vector<int> first;
  std::vector<float> weight;
};

Axis MakeAxis(float origin, float extent, int source, int size, bool flip, Filter filter) {
  const float radius = FilterRadius(filter, extent, size);
  Axis axis;
  axis.taps = static_cast<int>(std::ceil(2 * radius));
  axis.first.resize(size);
  axis.weight.resize(static_cast<size_t>(axis.taps) * size);
  axis.begin = size;
  axis.source_begin = source;
  for (int i = 0; i < size; ++i) {
    const float centre = SourceCentre(origin, extent, size, flip ? size - 1 - i : i);
    const Taps taps = TapsAround(centre, radius, source);
    if (taps.count == 0) continue;
    axis.begin = std::min(axis.begin, i);
    axis.end = i + 1;
    axis.first[i] = taps.first;
    axis.source_begin = std::min(axis.source_begin, taps.first);
    axis.source_end = std::max(axis.source_end, taps.first + taps.count);
    float* const weight = axis.weight.data() + static_cast<size_t>(i) * axis.taps;
    float sum = 0;
    for (int k = 0; k < taps.count; ++k) sum += weight[k] = TapWeight(taps.first + k, centre, radius);
    for (int k = 0; k < taps.count; ++k) weight[k] /= sum;
  }
  return axis;
}

DEEPER_SIMD void AddScaledPixels(const uint8_t* __restrict pixels, float weight, int64_t count,
                                 float* __restrict row) {
  for (int64_t i = 0; i < count; ++i) row[i] += weight * static_cast<float>(pixels[i]);
}

// Filters four lanes per pixel, for any number of channels. The unused lanes hold the neighbour's values.
constexpr int kLanes = 4;

DEEPER_SIMD void FilterRow(const float* __restrict row, const int* __restrict first, int stride,
                           const float* __restrict weight, int taps, int size, float* __restrict pixels) {
  for (int i = 0; i < size; ++i) {
    const float* source = row + first[i] * stride;
    float sum[kLanes] = {};
    for (int k = 0; k < taps; ++k) {
      for (int lane = 0; lane < kLanes; ++lane) sum[lane] += weight[i * taps + k] * source[k * stride + lane];
    }
    for (int lane = 0; lane < kLanes; ++lane) pixels[i * kLanes + lane] = sum[lane];
  }
}

DEEPER_SIMD void ScaleLane(const float* __restrict lane, PixelScale s, int count, float* __restrict out) {
  for (int i = 0; i < count; ++i) out[i] = lane[i * kLanes] * s.scale + s.shift;
}

// `green` and `blue`: indices of their lanes.
DEEPER_SIMD void RecolorLanes(const float* __restrict pixels, int green, int blue, const float* m,
                              PixelScale s, int count, float* __restrict out) {
  for (int i = 0; i < count; ++i) {
    const float* const p = pixels + i * kLanes;
    out[i] = Recolor(m, p[0], p[green], p[blue]) * s.scale + s.shift;
  }
}

template <int kStride>
[[gnu::always_inline]] inline void ScaleEvery(const uint8_t* __restrict pixels, PixelScale s, int count,
                                              float* __restrict out) {
  for (int i = 0; i < count; ++i) out[i] = static_cast<float>(pixels[i * kStride]) * s.scale + s.shift;
}

// Reads every `stride`-th byte; a negative stride mirrors. Constant strides vectorise.
DEEPER_SIMD void ScalePixels(const uint8_t* pixels, int stride, PixelScale s, int count, float* out) {
  switch (stride) {
    case 1:
      return ScaleEvery<1>(pixels, s, count, out);
    case -1:
      return ScaleEvery<-1>(pixels, s, count, out);
    case 3:
      return ScaleEvery<3>(pixels, s, count, out);
    case -3:
      return ScaleEvery<-3>(pixels, s, count, out);
  }
}

// For a window of the output's size on whole pixels, which needs no interpolation.
void CopyWindow(const Image& image, const Window& window, const PixelScale* scales, int channels, int height,
                int width, float* out) {
  const int left = static_cast<int>(window.x), top = static_cast<int>(window.y);
  const int begin = std::clamp(-left, 0, width), end = std::clamp(image.width - left, begin, width);
  const int stride = window.flip ? -image.channels : image.channels;
  const int out_begin = window.flip ? width - end : begin;
  for (int c = 0; c < channels; ++c) {
    for (int y = 0; y < height; ++y, out += width) {
      const int row = top + y;
      if (row < 0 || row >= image.height || begin == end) {
        std::fill_n(out, width, 0.0f);
        continue;
      }
      const int64_t start = static_cast<int64_t>(row) * image.width + left + (window.flip ? end - 1 : begin);
      const uint8_t* pixels = image.pixels.data() + start * image.channels + (image.channels == 1 ? 0 : c);
      std::fill_n(out, out_begin, 0.0f);
      ScalePixels(pixels, stride, scales[c], end - begin, out + out_begin);
      std::fill(out + out_begin + (end - begin), out + width, 0.0f);
    }
  }
}

void FilterWindow(const Image& image, const Sampling& sampling, const PixelScale* scales, int channels,
                  int height, int width, float* out) {
  const Window& window = sampling.window;
  const bool recolor = sampling.color != ColorMatrix{};
  const Axis xs = MakeAxis(window.x, window.width, image.width, width, window.flip, sampling.filter);
  const Axis ys = MakeAxis(window.y, window.height, image.height, height, false, sampling.filter);
  std::fill_n(out, static_cast<int64_t>(channels) * height * width, 0.0f);
  const int stride = image.channels;
  const int64_t row_begin = static_cast<int64_t>(xs.source_begin) * stride;
  const int64_t row_count = (xs.source_end - xs.source_begin) * stride;
  std::vector<float> row(static_cast<size_t>(image.width + xs.taps) * stride +
                         kLanes);  // past the right edge: zeros, with weight 0
  std::vector<float> pixels(static_cast<size_t>(width) * kLanes);
  for (int y = ys.begin; y < ys.end && row_count > 0; ++y) {
    std::fill_n(row.begin() + row_begin, row_count, 0.0f);
    for (int k = 0; k < ys.taps; ++k) {
      const float weight = ys.weight[static_cast<size_t>(y) * ys.taps + k];
      const int64_t pixel = (int64_t{ys.first[y]} + k) * image.width * stride + row_begin;
      if (weight > 0) AddScaledPixels(image.pixels.data() + pixel, weight, row_count, row.data() + row_begin);
    }
    FilterRow(row.data(), xs.first.data() + xs.begin, stride, xs.weight.data() + xs.begin * xs.taps, xs.taps,
              xs.end - xs.begin, pixels.data());
    for (int c = 0; c < channels; ++c) {
      float* to = out + (static_cast<int64_t>(c) * height + y) * width + xs.begin;
      const int green = stride == 1 ? 0 : 1;
      if (recolor) {
        RecolorLanes(pixels.data(), green, 2 * green, sampling.color.m[c], scales[c], xs.end - xs.begin, to);
      } else {
        ScaleLane(pixels.data() + green * c, scales[c], xs.end - xs.begin, to);
      }
    }
  }
}

// Whether the window has the output's size and lies on whole pixels.
bool OnWholePixels(const Window& window, int height, int width) {
  return window.width == static_cast<float>(width) && window.height == static_cast<float>(height) &&
         window.x == std::trunc(window.x) && window.y == std::trunc(window.y);
}

void Erase(const PixelRect& rect, int channels, int height, int width, float* out) {
  for (int c = 0; c < channels; ++c) {
    for (int y = rect.y; y < rect.y + rect.height; ++y)
      std::fill_n(out + (int64_t{c} * height + y) * width + rect.x, rect.width, 0.0f);
  }
}

DEEPER_SIMD void MixRow(float weight, int64_t count, float* __restrict a, float* __restrict b) {
  for (int64_t i = 0; i < count; ++i) {
    const float x = a[i], y = b[i];
    a[i] = (1 - weight) * x + weight * y;
    b[i] = (1 - weight) * y + weight * x;
  }
}

}  // namespace

PixelRect PixelsOf(const Window& window, Filter filter, int height, int width, ImageSize image) {
  const auto along = [filter](float origin, float extent, int size, int source) {
    const float radius = FilterRadius(filter, extent, size);
    const int begin = std::clamp(static_cast<int>(std::floor(origin - radius)), 0, source - 1);
    const int end = std::clamp(static_cast<int>(std::ceil(origin + extent + radius)), begin + 1, source);
    return std::pair(begin, end - begin);
  };
  const auto [x, columns] = along(window.x, window.width, width, image.width);
  const auto [y, rows] = along(window.y, window.height, height, image.height);
  return {x, y, columns, rows};
}

void SampleImage(const Image& image, const Sampling& sampling, const PixelScale* scales, int channels,
                 int height, int width, float* out) {
  DEEPER_CHECK(image.channels == channels || image.channels == 1);
  DEEPER_CHECK(image.channels == 1 || image.channels == 3);
  if (OnWholePixels(sampling.window, height, width) && sampling.color == ColorMatrix{}) {
    CopyWindow(image, sampling.window, scales, channels, height, width, out);
  } else {
    FilterWindow(image, sampling, scales, channels, height, width, out);
  }
  Erase(sampling.erased, channels, height, width, out);
}

void MixSamples(const Mix& mix, int channels, int height, int width, float* a, float* b) {
  const PixelRect& rect = mix.pasted;
  if (rect.empty()) return MixRow(mix.weight, int64_t{channels} * height * width, a, b);
  for (int c = 0; c < channels; ++c) {
    for (int y = rect.y; y < rect.y + rect.height; ++y) {
      const int64_t at = (int64_t{c} * height + y) * width + rect.x;
      std::swap_ranges(a + at, a + at + rect.width, b + at);
    }
  }
}

Image ResizeWindow(const Image& src, const Window& window, Filter filter, int height, int width,
                   const float* outside) {
  const int64_t plane = static_cast<int64_t>(height) * width;
  const std::vector<float> added = outside == nullptr ? std::vector<float>(src.channels)
                                                      : std::vector<float>(outside, outside + src.channels);
  std::vector<PixelScale> unscaled;
  for (const float value : added) unscaled.push_back({1, -value});  // the parts outside become 0
  std::vector<float> planes(src.channels * plane);
  SampleImage(src, {window, filter}, unscaled.data(), src.channels, height, width, planes.data());
  Image image{height, width, src.channels, std::vector<uint8_t>(planes.size())};
  for (int64_t i = 0; i < plane; ++i) {
    for (int c = 0; c < src.channels; ++c) {
      image.pixels[i * src.channels + c] =
          static_cast<uint8_t>(std::lrintf(planes[c * plane + i] + added[c]));
    }
  }
  return image;
}

}  // namespace deeper
