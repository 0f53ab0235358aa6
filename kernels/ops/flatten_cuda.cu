#include "kernels/cuda/base/cuda_for_each.h"
#include "kernels/ops/flatten.h"
#include "kernels/ops/join.h"

namespace deeper {
namespace {

// Iterates in the order of y.
template <class T>
struct ToVector {
  TensorDesc desc;  // of x
  const T* x;
  T* y;
  DEEPER_HD void operator()(int64_t i) const {
    const int64_t pixels = desc.shape.spatial(), plane = i / pixels, channels = desc.shape.c;
    y[i] = x[desc.Offset(plane / channels, plane % channels, 0, i % pixels)];
  }
};

// Stored channels are innermost, as in x if it is kNhwc. Padding channels become zero.
template <class T>
struct ToFeatureMap {
  TensorDesc desc;
  const T* y;
  T* x;
  DEEPER_HD void operator()(int64_t i) const {
    const int64_t stored = desc.padded_channels(), channels = desc.shape.c, pixels = desc.shape.spatial();
    const int64_t channel = i % stored, row = i / stored, n = row / pixels, pixel = row % pixels;
    x[desc.Offset(n, channel, 0, pixel)] =
        channel < channels ? y[(n * channels + channel) * pixels + pixel] : T{};
  }
};

class FlattenCuda final : public Op {
 public:
  explicit FlattenCuda(const OpSetup& s) : device_(AsCuda(s.device)) {
    needs_ = s.Needs({s.shape.y, s.x.dtype});
  }

  void Forward() override {
    WithFloatType(needs_.x.dtype, [&]<class T>() {
      ForEach(device_, {"flatten", bytes()}, needs_.y.stored_elements(),
              ToVector<T>{needs_.x, static_cast<const T*>(binding_.x), static_cast<T*>(binding_.y)});
    });
  }
  void Backward() override {
    if (needs_.dx_parts.empty()) return;
    JoinGradientsCuda(device_, binding_.dy, nullptr, needs_.y, binding_.dy[0]);
    WithFloatType(needs_.x.dtype, [&]<class T>() {
      ForEach(
          device_, {"flatten gradient", bytes()}, needs_.x.stored_elements(),
          ToFeatureMap<T>{needs_.x, static_cast<const T*>(binding_.dy[0]), static_cast<T*>(binding_.dx[0])});
    });
  }

 private:
  int64_t bytes() const { return static_cast<int64_t>(needs_.x.bytes() + needs_.y.bytes()); }

  CudaDevice& device_;
};

}  // namespace

MadeOp MakeCuda(const FlattenParams&, const OpSetup& setup) {
  return std::make_unique<FlattenCuda>(setup);
}

}  // namespace deeper
