#include <algorithm>
#include <cmath>

#include "kernels/cuda_for_each.h"
#include "kernels/images.h"

namespace deeper {
namespace {

// The two source pixels an output is made of along one axis. As data/resize.cpp's MakeAxis: a triangle of
// half-width 1 normalised over the pixels that exist.
struct Taps {
  int first = 0, count = 0;  // count 0: the centre lies beyond the image
  float weight[2] = {};
};

DEEPER_HD Taps TapsAt(float centre, int source) {
  Taps taps;
  if (!(centre >= 0 && centre < static_cast<float>(source))) return taps;
  taps.first = std::max(0, static_cast<int>(floorf(centre - 0.5f)));
  taps.count = std::min(2, source - taps.first);
  float sum = 0;
  for (int k = 0; k < taps.count; ++k) {
    const float distance = fabsf(static_cast<float>(taps.first + k) + 0.5f - centre);
    taps.weight[k] = fmaxf(0.0f, 1 - distance);
    sum += taps.weight[k];
  }
  for (int k = 0; k < taps.count; ++k) taps.weight[k] /= sum;
  return taps;
}

// One pixel of the output, all its channels and their padding: 16 bytes.
template <class T>
struct SamplePixel {
  static constexpr int kChannels = 16 / sizeof(T);

  const std::byte* batch;
  PixelScales scales;
  int height, width, channels;
  T* images;

  DEEPER_HD void operator()(int64_t i) const {
    const int column = static_cast<int>(i % width), row = static_cast<int>(i / width % height);
    const PackedImage& image = reinterpret_cast<const PackedImage*>(batch)[i / (int64_t{width} * height)];
    const Window& w = image.window;
    const Taps ys = TapsAt(SourceCentre(w.y, w.height, height, row), image.height);
    const Taps xs =
        TapsAt(SourceCentre(w.x, w.width, width, w.flip ? width - 1 - column : column), image.width);
    Pack<T, kChannels> out = {};
    if (ys.count > 0 && xs.count > 0) {
      for (int c = 0; c < channels; ++c) {
        const float value = Sample(image, ys, xs, image.channels == 1 ? 0 : c);
        out.v[c] = FromFloat<T>(value * scales.channel[c].scale + scales.channel[c].shift);
      }
    }
    StorePack(images + i * kChannels, out);
  }

  DEEPER_HD float Sample(const PackedImage& image, const Taps& ys, const Taps& xs, int channel) const {
    const auto* const pixels = reinterpret_cast<const uint8_t*>(batch + image.offset) + channel;
    float value = 0;
    for (int x = 0; x < xs.count; ++x) {
      float mixed = 0;
      for (int y = 0; y < ys.count; ++y) {
        const int64_t at = int64_t{ys.first + y} * image.width + xs.first + x;
        mixed += ys.weight[y] * static_cast<float>(pixels[at * image.channels]);
      }
      value += xs.weight[x] * mixed;
    }
    return value;
  }
};

template <class T>
struct PlacePixel {
  static constexpr int kChannels = 16 / sizeof(T);

  const float* normalised;
  int64_t pixels;  // of a plane
  int channels;
  T* images;

  DEEPER_HD void operator()(int64_t i) const {
    const int64_t n = i / pixels, pixel = i % pixels;
    Pack<T, kChannels> out = {};
    for (int c = 0; c < channels; ++c) {
      out.v[c] = FromFloat<T>(normalised[(n * channels + c) * pixels + pixel]);
    }
    StorePack(images + i * kChannels, out);
  }
};

template <class T>
void PlaceAs(CudaDevice& device, const float* normalised, const TensorDesc& desc, void* images) {
  const Shape& s = desc.shape;
  const int64_t bytes = s.elements() * int64_t{sizeof(float)} + static_cast<int64_t>(desc.bytes());
  ForEach(device, {"place images", bytes}, s.n * s.spatial(),
          PlacePixel<T>{normalised, s.spatial(), static_cast<int>(s.c), static_cast<T*>(images)});
}

template <class T>
void SampleAs(CudaDevice& device, const std::byte* batch, const PixelScales& scales, const TensorDesc& desc,
              void* images) {
  const Shape& s = desc.shape;
  const int64_t pixels = s.n * s.spatial();
  ForEach(device, {"sample images", pixels * s.c + static_cast<int64_t>(desc.bytes())}, pixels,
          SamplePixel<T>{batch, scales, static_cast<int>(s.h), static_cast<int>(s.w), static_cast<int>(s.c),
                         static_cast<T*>(images)});
}

}  // namespace

void PlaceImagesCuda(Device& device, const float* normalised, const TensorDesc& desc, void* images) {
  if (desc.dtype == DType::kBf16) {
    PlaceAs<bf16>(AsCuda(device), normalised, desc, images);
  } else {
    PlaceAs<float>(AsCuda(device), normalised, desc, images);
  }
}

void SampleImagesCuda(Device& device, const std::byte* batch, const PixelScales& scales,
                      const TensorDesc& desc, void* images) {
  if (desc.dtype == DType::kBf16) {
    SampleAs<bf16>(AsCuda(device), batch, scales, desc, images);
  } else {
    SampleAs<float>(AsCuda(device), batch, scales, desc, images);
  }
}

}  // namespace deeper
