#include "kernels/base/bf16.h"
#include "kernels/base/check.h"
#include "kernels/base/parallel.h"
#include "kernels/ops/arrays/arrays.h"
#include "kernels/ops/images.h"

namespace deeper {

namespace {

// planes: [channels][pixels] -> rows [pixels][channels].
template <class T>
void Interleave(const float* planes, int64_t channels, int64_t pixels, T* rows) {
  for (int64_t p = 0; p < pixels; ++p) {
    for (int64_t c = 0; c < channels; ++c) rows[p * channels + c] = FromFloat<T>(planes[c * pixels + p]);
  }
}

}  // namespace

void PlaceImagesCpu(Device& device, const float* normalised, const TensorDesc& desc, void* images) {
  if (desc.layout == Layout::kNhwc && desc.shape.c > 1) {
    const int64_t channels = desc.shape.c, pixels = desc.shape.spatial();
    WithFloatType(desc.dtype, [&]<class T>() {
      ParallelFor(desc.shape.n, 1, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
          Interleave(normalised + n * channels * pixels, channels, pixels,
                     static_cast<T*>(images) + n * channels * pixels);
        }
      });
    });
  } else if (desc.dtype == DType::kBf16) {
    Narrow(device, normalised, images, desc.stored_elements());
  } else {
    device.Copy(images, normalised, desc.bytes());
  }
}

void SampleImagesCpu(Device&, const std::byte*, const PixelScales&, const TensorDesc&, void*) {
  DEEPER_CHECK(false, "packed batches need CUDA");
}

}  // namespace deeper
