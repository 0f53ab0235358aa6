#include <algorithm>
#include <cstring>

#include "kernels/bf16.h"
#include "kernels/dropout.h"
#include "kernels/join_cpu.h"
#include "kernels/parallel.h"
#include "kernels/rng.h"

namespace deeper {
namespace {

// What a sample's elements [first, first + count) are multiplied by; count <= kRun.
constexpr int64_t kRun = 256;
class Scales {
 public:
  Scales(const Rng& rng, float p, int64_t first, int64_t count) : skip_(first % 4) {
    const float kept = 1 / (1 - p);
    const auto block = static_cast<uint32_t>(first / 4);
    for (int64_t i = 0; i < skip_ + count; i += 4) {
      const Random4 random = rng.Block(block + static_cast<uint32_t>(i / 4));
      for (int64_t j = 0; j < 4; ++j) scales_[i + j] = UnitFloat(random.v[j]) < p ? 0.0f : kept;
    }
  }
  float operator[](int64_t i) const { return scales_[skip_ + i]; }

 private:
  int64_t skip_;
  float scales_[kRun + 4];
};

// Channels of one pixel that are neighbours in memory; 1 or a divisor of the stored channels.
int64_t NeighbouringChannels(const TensorDesc& desc) {
  if (desc.layout == Layout::kBlocked) return desc.block;
  return desc.layout == Layout::kNhwc || desc.shape.spatial() == 1 ? desc.shape.c : 1;
}

template <class T>
void DropPixel(const Rng& rng, float p, const TensorDesc& desc, int64_t n, int64_t pixel, const T* from,
               T* to) {
  const int64_t channels = desc.shape.c, width = desc.shape.w, neighbours = NeighbouringChannels(desc);
  for (int64_t c = 0; c < channels; c += neighbours) {
    const int64_t at = desc.Offset(n, c, pixel / width, pixel % width);
    const int64_t present = std::min(neighbours, channels - c);
    for (int64_t run = 0; run < present; run += kRun) {
      const int64_t count = std::min(kRun, present - run);
      const Scales scales(rng, p, pixel * channels + c + run, count);
      for (int64_t i = 0; i < count; ++i) {
        to[at + run + i] = FromFloat<T>(ToFloat(from[at + run + i]) * scales[i]);
      }
    }
    if (desc.layout == Layout::kBlocked) std::fill(to + at + present, to + at + neighbours, T{});
  }
}

class DropoutCpu final : public Op {
 public:
  DropoutCpu(const DropoutParams& params, const TensorDesc& x, const OpOptions& options)
      : p_(params.p), training_(options.training), stream_(RandomStream(options.name)) {
    needs_.x = needs_.y = x;
    if (options.training && options.want_dx) needs_.dx_parts = {x};
  }

  void Forward() override {
    if (training_) {
      Drop(binding_.x, binding_.y);
    } else {
      std::memcpy(binding_.y, binding_.x, needs_.y.bytes());
    }
  }
  void Backward() override {
    if (needs_.dx_parts.empty()) return;
    JoinGradients(binding_.dy, nullptr, needs_.y, binding_.dy[0]);
    Drop(binding_.dy[0], binding_.dx[0]);
  }

 private:
  void Drop(const void* from, void* to) const {
    if (needs_.x.dtype == DType::kBf16) {
      Drop(static_cast<const bf16*>(from), static_cast<bf16*>(to));
    } else {
      Drop(static_cast<const float*>(from), static_cast<float*>(to));
    }
  }
  template <class T>
  void Drop(const T* from, T* to) const {
    const StepContext& step = *binding_.step;
    const int64_t pixels = needs_.x.shape.spatial();
    ParallelFor(needs_.x.shape.n * pixels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Rng rng(step.seed, stream_, step.epoch, step.samples[i / pixels]);
        DropPixel(rng, p_, needs_.x, i / pixels, i % pixels, from, to);
      }
    });
  }

  float p_;
  bool training_;
  uint32_t stream_;
};

}  // namespace

std::unique_ptr<Op> MakeDropoutCpu(const DropoutParams& params, const TensorDesc& x,
                                   const OpOptions& options) {
  return std::make_unique<DropoutCpu>(params, x, options);
}

}  // namespace deeper
