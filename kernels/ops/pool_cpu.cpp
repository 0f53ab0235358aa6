#include <algorithm>

#include "kernels/base/bf16.h"
#include "kernels/base/parallel.h"
#include "kernels/base/status.h"
#include "kernels/ops/join.h"
#include "kernels/ops/pool.h"
#include "kernels/ops/primitive_op_cpu.h"

namespace deeper {
namespace {

constexpr int64_t kMaxBlock = 16;

// Pools one block of channels: x [pixels, block] -> y [channels].
template <class T>
void Average(const T* x, int64_t pixels, int64_t block, int64_t channels, T* y) {
  float sums[kMaxBlock] = {};
  for (int64_t p = 0; p < pixels; ++p) {
    for (int64_t c = 0; c < block; ++c) sums[c] += ToFloat(x[p * block + c]);
  }
  for (int64_t c = 0; c < channels; ++c) y[c] = FromFloat<T>(sums[c] / static_cast<float>(pixels));
}

template <class T>
void Spread(const T* dy, int64_t pixels, int64_t block, int64_t channels, T* dx) {
  T values[kMaxBlock] = {};  // lanes beyond `channels` stay zero
  for (int64_t c = 0; c < channels; ++c)
    values[c] = FromFloat<T>(ToFloat(dy[c]) / static_cast<float>(pixels));
  for (int64_t p = 0; p < pixels; ++p) std::copy_n(values, block, dx + p * block);
}

class GlobalAvgPoolCpu final : public Op {
 public:
  explicit GlobalAvgPoolCpu(const OpSetup& s) { needs_ = s.Needs({s.shape.y, s.x.dtype}); }

  void Forward() override {
    ForEachBlock(binding_.x, binding_.y,
                 [](auto* x, auto* y, int64_t pixels, int64_t block, int64_t channels) {
                   Average(x, pixels, block, channels, y);
                 });
  }
  void Backward() override {
    if (needs_.dx_parts.empty()) return;
    JoinGradientsCpu(binding_.dy, nullptr, needs_.y, binding_.dy[0]);
    ForEachBlock(binding_.dx[0], binding_.dy[0],
                 [](auto* dx, auto* dy, int64_t pixels, int64_t block, int64_t channels) {
                   Spread(dy, pixels, block, channels, dx);
                 });
  }

 private:
  template <class Body>
  void ForEachBlock(void* map, void* vector, const Body& body) const {
    const TensorDesc& x = needs_.x;
    const int64_t blocks = x.padded_channels() / x.block;
    WithFloatType(x.dtype, [&]<class T>() {
      ParallelFor(x.shape.n * blocks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t n = i / blocks, c = i % blocks * x.block;
          body(static_cast<T*>(map) + x.Offset(n, c, 0, 0), static_cast<T*>(vector) + n * x.shape.c + c,
               x.shape.spatial(), x.block, std::min(x.block, x.shape.c - c));
        }
      });
    });
  }
};

}  // namespace

MadeOp MakeCpu(const PoolParams& params, const OpSetup& s) {
  const auto algorithm = params.kind == PoolParams::Kind::kMax ? dnnl::algorithm::pooling_max
                                                               : dnnl::algorithm::pooling_avg_exclude_padding;
  OpNeeds needs = s.Needs(s.device.FeatureMap(s.shape.y, s.x.dtype));
  // Masking dy masks dx: the x that receives the gradient of a window equals its y.
  needs.backward_reads_y = params.mask_dx && s.wants_dx();
  const onednn::Window window = {params.window(s.x.shape.h), params.window(s.x.shape.w), params.stride,
                                 params.pad};
  // oneDNN's max pooling saves the position of the first maximum of each window for the backward pass
  // (pool_test.cpp).
  ASSIGN_OR_RETURN(auto passes, onednn::MakePooling(algorithm, onednn::DescOf(s.x), onednn::DescOf(needs.y),
                                                    window, {s.options.training, s.wants_dx()}));
  return std::make_unique<PrimitiveOp>(std::move(needs), std::move(passes));
}

MadeOp MakeCpu(const GlobalAvgPoolParams&, const OpSetup& setup) {
  return std::make_unique<GlobalAvgPoolCpu>(setup);
}

}  // namespace deeper
