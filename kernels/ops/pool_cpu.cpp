#include <algorithm>

#include "kernels/base/bf16.h"
#include "kernels/base/parallel.h"
#include "kernels/base/status.h"
#include "kernels/cpu/channel_groups.h"
#include "kernels/cpu/profile.h"
#include "kernels/ops/join.h"
#include "kernels/ops/pool.h"
#include "kernels/ops/primitive_op_cpu.h"

namespace deeper {
namespace {

// A group of channels of one image, of which `stored` are in memory and `channels` are not padding.
struct Group {
  int64_t pixels, pitch, stored, channels;
};

// Pools a group: x [pixels, stored] -> y [channels].
template <class T>
DEEPER_SIMD void Average(const T* x, const Group& g, T* y) {
  float sums[ChannelGroups::kMax] = {};
  for (int64_t p = 0; p < g.pixels; ++p) {
    for (int64_t c = 0; c < g.stored; ++c) sums[c] += ToFloat(x[p * g.pitch + c]);
  }
  for (int64_t c = 0; c < g.channels; ++c) y[c] = FromFloat<T>(sums[c] / static_cast<float>(g.pixels));
}

template <class T>
DEEPER_SIMD void Spread(const T* dy, const Group& g, T* dx) {
  T values[ChannelGroups::kMax] = {};  // padding channels stay zero
  for (int64_t c = 0; c < g.channels; ++c)
    values[c] = FromFloat<T>(ToFloat(dy[c]) / static_cast<float>(g.pixels));
  for (int64_t p = 0; p < g.pixels; ++p) std::copy_n(values, g.stored, dx + p * g.pitch);
}

class GlobalAvgPoolCpu final : public Op {
 public:
  explicit GlobalAvgPoolCpu(const OpSetup& s) { needs_ = s.Needs({s.shape.y, s.x.dtype}); }

  void Forward() override {
    ForEachGroup(binding_.x, binding_.y, [](auto* x, auto* y, const Group& g) { Average(x, g, y); });
  }
  void Backward() override {
    if (needs_.dx_parts.empty()) return;
    JoinGradientsCpu(binding_.dy, nullptr, needs_.y, binding_.dy[0]);
    ForEachGroup(binding_.dx[0], binding_.dy[0],
                 [](auto* dx, auto* dy, const Group& g) { Spread(dy, g, dx); });
  }

 private:
  template <class Body>
  void ForEachGroup(void* map, void* vector, const Body& body) const {
    const TensorDesc& x = needs_.x;
    const ChannelGroups groups(x);
    Timed({"global pool", static_cast<int64_t>(x.bytes())}, [&] {
      WithFloatType(x.dtype, [&]<class T>() {
        ParallelFor(x.shape.n * groups.count, 1, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            const int64_t n = i / groups.count, g = i % groups.count, c = g * groups.size;
            body(static_cast<T*>(map) + x.Offset(n, c, 0, 0), static_cast<T*>(vector) + n * x.shape.c + c,
                 Group{x.shape.spatial(), groups.pitch, groups.SizeOf(g),
                       std::min(groups.size, x.shape.c - c)});
          }
        });
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
