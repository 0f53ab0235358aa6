#include "kernels/cuda/base/cuda_for_each.h"
#include "kernels/ops/images.h"

namespace deeper {
namespace {

// One pixel of the output with all channels and padding: 16 bytes.
template <class T>
struct SamplePixel {
  static constexpr int kChannels = 16 / sizeof(T);

  const std::byte* batch;
  PixelScales scales;
  int height, width, channels;
  T* images;

  DEEPER_HD void operator()(int64_t i) const {
    const int column = static_cast<int>(i % width), row = static_cast<int>(i / width % height);
    const auto* const entries = reinterpret_cast<const PackedImage*>(batch);
    const PackedImage& image = entries[i / (int64_t{width} * height)];
    const float share = PartnersShare(image.mix, row, column);
    float own[kMaxImageChannels] = {}, partner[kMaxImageChannels] = {};
    if (share < 1) Normalised(image, row, column, own);
    if (share > 0) Normalised(entries[image.partner], row, column, partner);
    Pack<T, kChannels> out = {};
    for (int c = 0; c < channels; ++c) out.v[c] = FromFloat<T>((1 - share) * own[c] + share * partner[c]);
    StorePack(images + i * kChannels, out);
  }

  // `value` must be zeros.
  DEEPER_HD void Normalised(const PackedImage& image, int row, int column, float* value) const {
    const Sampling& s = image.sampling;
    float rgb[3];
    if (s.erased.Contains(row, column) || !Sample(image, row, column, rgb)) return;
    for (int c = 0; c < channels; ++c) {
      const PixelScale& scale = scales.channel[c];
      value[c] = Recolor(s.color.m[c], rgb[0], rgb[1], rgb[2]) * scale.scale + scale.shift;
    }
  }

  // False if the centre is outside the image.
  DEEPER_HD bool Sample(const PackedImage& image, int row, int column, float* rgb) const {
    const Window& w = image.sampling.window;
    const float centre_y = SourceCentre(w.y, w.height, height, row),
                centre_x = SourceCentre(w.x, w.width, width, w.flip ? width - 1 - column : column);
    const float radius_y = FilterRadius(image.sampling.filter, w.height, height),
                radius_x = FilterRadius(image.sampling.filter, w.width, width);
    const Taps ys = TapsAround(centre_y, radius_y, image.height),
               xs = TapsAround(centre_x, radius_x, image.width);
    if (ys.count == 0 || xs.count == 0) return false;
    const auto* const pixels = reinterpret_cast<const uint8_t*>(batch + image.offset);
    const int green = image.channels == 1 ? 0 : 1, blue = 2 * green;
    float sum = 0;
    rgb[0] = rgb[1] = rgb[2] = 0;
    for (int y = ys.first; y < ys.first + ys.count; ++y) {
      const float weight_y = TapWeight(y, centre_y, radius_y);
      for (int x = xs.first; x < xs.first + xs.count; ++x) {
        const float weight = weight_y * TapWeight(x, centre_x, radius_x);
        const uint8_t* const pixel = pixels + (int64_t{y} * image.width + x) * image.channels;
        sum += weight;
        rgb[0] += weight * static_cast<float>(pixel[0]);
        rgb[1] += weight * static_cast<float>(pixel[green]);
        rgb[2] += weight * static_cast<float>(pixel[blue]);
      }
    }
    for (int c = 0; c < 3; ++c) rgb[c] /= sum;
    return true;
  }
};

template <class T>
struct PlacePixel {
  static constexpr int kChannels = 16 / sizeof(T);

  const float* normalised;
  int64_t pixels;  // per plane
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

}  // namespace

void PlaceImagesCuda(Device& device, const float* normalised, const TensorDesc& desc, void* images) {
  const Shape& s = desc.shape;
  const int64_t bytes = s.elements() * int64_t{sizeof(float)} + static_cast<int64_t>(desc.bytes());
  WithFloatType(desc.dtype, [&]<class T>() {
    ForEach(AsCuda(device), {"place images", bytes}, s.n * s.spatial(),
            PlacePixel<T>{normalised, s.spatial(), static_cast<int>(s.c), static_cast<T*>(images)});
  });
}

void SampleImagesCuda(Device& device, const std::byte* batch, const PixelScales& scales,
                      const TensorDesc& desc, void* images) {
  const Shape& s = desc.shape;
  const int64_t pixels = s.n * s.spatial();
  WithFloatType(desc.dtype, [&]<class T>() {
    ForEach(AsCuda(device), {"sample images", pixels * s.c + static_cast<int64_t>(desc.bytes())}, pixels,
            SamplePixel<T>{batch, scales, static_cast<int>(s.h), static_cast<int>(s.w), static_cast<int>(s.c),
                           static_cast<T*>(images)});
  });
}

}  // namespace deeper
