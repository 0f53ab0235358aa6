#include "kernels/base/parallel.h"
#include "kernels/cpu/profile.h"
#include "kernels/ops/flatten.h"
#include "kernels/ops/join.h"

namespace deeper {
namespace {

// Calls move(position in x, position in y, pixels, stride in x) for each plane of one channel. In every
// layout the pixels of a plane have equal distances. Planes of padding channels have the position -1 in y.
template <class Move>
void ForEachPlane(const TensorDesc& x, const Move& move) {
  const int64_t pixels = x.shape.spatial(), stored = x.padded_channels();
  const int64_t stride = x.layout == Layout::kNhwc ? x.shape.c : x.block;
  ParallelFor(x.shape.n * stored, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / stored, c = i % stored;
      move(x.Offset(n, c, 0, 0), c < x.shape.c ? (n * x.shape.c + c) * pixels : -1, pixels, stride);
    }
  });
}

int64_t CopiedBytes(const TensorDesc& desc) {
  return static_cast<int64_t>(2 * desc.bytes());
}

template <class T>
void ToVector(const TensorDesc& desc, const T* x, T* y) {
  ForEachPlane(desc, [&](int64_t at_x, int64_t at_y, int64_t pixels, int64_t stride) {
    if (at_y < 0) return;
    for (int64_t p = 0; p < pixels; ++p) y[at_y + p] = x[at_x + p * stride];
  });
}

template <class T>
void ToFeatureMap(const TensorDesc& desc, const T* y, T* x) {
  ForEachPlane(desc, [&](int64_t at_x, int64_t at_y, int64_t pixels, int64_t stride) {
    for (int64_t p = 0; p < pixels; ++p) x[at_x + p * stride] = at_y < 0 ? T{} : y[at_y + p];
  });
}

class FlattenCpu final : public Op {
 public:
  explicit FlattenCpu(const OpSetup& s) { needs_ = s.Needs({s.shape.y, s.x.dtype}); }

  void Forward() override {
    WithFloatType(needs_.x.dtype, [&]<class T>() {
      Timed({"flatten", CopiedBytes(needs_.x)},
            [&] { ToVector(needs_.x, static_cast<const T*>(binding_.x), static_cast<T*>(binding_.y)); });
    });
  }
  void Backward() override {
    if (needs_.dx_parts.empty()) return;
    JoinGradientsCpu(binding_.dy, nullptr, needs_.y, binding_.dy[0]);
    WithFloatType(needs_.x.dtype, [&]<class T>() {
      Timed({"flatten", CopiedBytes(needs_.x)}, [&] {
        ToFeatureMap(needs_.x, static_cast<const T*>(binding_.dy[0]), static_cast<T*>(binding_.dx[0]));
      });
    });
  }
};

}  // namespace

MadeOp MakeCpu(const FlattenParams&, const OpSetup& setup) {
  return std::make_unique<FlattenCpu>(setup);
}

}  // namespace deeper
