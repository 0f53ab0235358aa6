#include "kernels/base/rng.h"
#include "kernels/cuda/base/cuda_for_each.h"
#include "kernels/ops/cuda_rows.h"
#include "kernels/ops/dropout.h"
#include "kernels/ops/join.h"

namespace deeper {
namespace {

struct Mask {
  const StepContext* step;  // in device memory
  uint32_t stream;
  float p;

  DEEPER_HD Rng Draws(int64_t n) const { return Rng(step->seed, stream, step->epoch, step->samples[n]); }
  // The factor for an element.
  DEEPER_HD float Scale(uint32_t random) const { return UnitFloat(random) < p ? 0.0f : 1 / (1 - p); }
};

// The positions of a sample's elements in the order of their numbers, N at a time. N is a multiple of a
// random block.
template <class T, int N>
struct DropPacks {
  static_assert(N % 4 == 0);
  Mask mask;
  int64_t packs;  // per sample
  const T* from;
  T* to;
  DEEPER_HD void operator()(int64_t i) const {
    const Rng draws = mask.Draws(i / packs);
    const auto block = static_cast<uint32_t>(i % packs * (N / 4));
    Pack<T, N> pack = LoadPack<T, N>(from + i * N);
    for (int b = 0; b < N / 4; ++b) {
      const Random4 random = draws.Block(block + static_cast<uint32_t>(b));
      for (int j = 4 * b; j < 4 * b + 4; ++j) {
        pack.v[j] = FromFloat<T>(ToFloat(pack.v[j]) * mask.Scale(random.v[j % 4]));
      }
    }
    StorePack(to + i * N, pack);
  }
};

// Works in any layout; i counts samples, pixels and stored channels.
template <class T>
struct DropElements {
  Mask mask;
  TensorDesc desc;
  const T* from;
  T* to;
  DEEPER_HD void operator()(int64_t i) const {
    const int64_t stored = desc.padded_channels(), channel = i % stored, row = i / stored;
    const int64_t n = row / desc.shape.spatial(), pixel = row % desc.shape.spatial();
    const int64_t at = desc.Offset(n, channel, 0, pixel);
    if (channel >= desc.shape.c) {
      to[at] = T{};
      return;
    }
    const auto element = static_cast<uint32_t>(pixel * desc.shape.c + channel);
    const Random4 random = mask.Draws(n).Block(element / 4);
    const uint32_t low = element % 2 == 0 ? random.v[0] : random.v[1];
    const uint32_t high = element % 2 == 0 ? random.v[2] : random.v[3];
    to[at] = FromFloat<T>(ToFloat(from[at]) * mask.Scale(element % 4 < 2 ? low : high));
  }
};

class DropoutCuda final : public Op {
 public:
  DropoutCuda(const DropoutParams& params, const OpSetup& s)
      : device_(AsCuda(s.device)),
        p_(params.p),
        training_(s.options.training),
        stream_(RandomStream(s.options.name)) {
    needs_ = s.Needs(s.x);
  }

  void Forward() override {
    if (training_) {
      Drop("dropout", binding_.x, binding_.y);
    } else {
      device_.Copy(binding_.y, binding_.x, needs_.y.bytes());
    }
  }
  void Backward() override {
    if (needs_.dx_parts.empty()) return;
    JoinGradientsCuda(device_, binding_.dy, nullptr, needs_.y, binding_.dy[0]);
    Drop("dropout gradient", binding_.dy[0], binding_.dx[0]);
  }

 private:
  void Drop(const char* name, const void* from, void* to) const {
    const Mask mask = {binding_.step, stream_, p_};
    const TensorDesc& x = needs_.x;
    const Launch launch = {name, static_cast<int64_t>(2 * x.bytes())};
    const int64_t count = x.stored_elements(), sample = count / x.shape.n;
    WithPacks(x.dtype, IsRows(x) ? sample : 1, [&]<class T, int N>() {
      if constexpr (N > 1) {
        ForEach(device_, launch, count / N,
                DropPacks<T, N>{mask, sample / N, static_cast<const T*>(from), static_cast<T*>(to)});
      } else {
        ForEach(device_, launch, count,
                DropElements<T>{mask, x, static_cast<const T*>(from), static_cast<T*>(to)});
      }
    });
  }

  CudaDevice& device_;
  float p_;
  bool training_;
  uint32_t stream_;
};

}  // namespace

MadeOp MakeCuda(const DropoutParams& params, const OpSetup& setup) {
  return std::make_unique<DropoutCuda>(params, setup);
}

}  // namespace deeper
