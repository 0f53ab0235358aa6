#include <algorithm>
#include <cstring>

#include "kernels/base/bf16.h"
#include "kernels/base/parallel.h"
#include "kernels/base/rng.h"
#include "kernels/cpu/profile.h"
#include "kernels/ops/dropout.h"
#include "kernels/ops/join.h"

namespace deeper {
namespace {

constexpr int64_t kRun = 256;  // channels per draw

// The factors for the elements of `blocks` random blocks.
void DrawScales(const Rng& rng, float p, uint32_t first_block, uint32_t blocks, float* scales) {
  const float kept = 1 / (1 - p);
  for (uint32_t b = 0; b < blocks; ++b) {
    const Random4 random = rng.Block(first_block + b);
    for (uint32_t i = 0; i < 4; ++i) scales[4 * b + i] = UnitFloat(random.v[i]) < p ? 0.0f : kept;
  }
}

// A run of channels of one pixel that are adjacent in memory.
int64_t NeighbouringChannels(const TensorDesc& desc) {
  if (desc.layout == Layout::kBlocked) return desc.block;
  return desc.layout == Layout::kNhwc || desc.shape.spatial() == 1 ? desc.shape.c : 1;
}

template <class T>
void DropPixel(const Rng& rng, float p, const TensorDesc& desc, int64_t n, int64_t pixel, const T* from,
               T* to) {
  const int64_t channels = desc.shape.c, width = desc.shape.w, neighbours = NeighbouringChannels(desc);
  float scales[kRun + 4];
  for (int64_t begin = 0; begin < channels; begin += kRun) {
    const int64_t end = std::min(channels, begin + kRun);
    const int64_t element = pixel * channels + begin, skipped = element % 4;
    DrawScales(rng, p, static_cast<uint32_t>(element / 4),
               static_cast<uint32_t>((skipped + end - begin + 3) / 4), scales);
    for (int64_t c = begin; c < end; c += neighbours) {
      const int64_t at = desc.Offset(n, c, pixel / width, pixel % width),
                    count = std::min(neighbours, end - c);
      const float* scale = scales + skipped + c - begin;
      for (int64_t i = 0; i < count; ++i) to[at + i] = FromFloat<T>(ToFloat(from[at + i]) * scale[i]);
    }
  }
  for (int64_t c = channels; c < desc.padded_channels(); ++c) {
    to[desc.Offset(n, c, pixel / width, pixel % width)] = T{};
  }
}

class DropoutCpu final : public Op {
 public:
  DropoutCpu(const DropoutParams& params, const OpSetup& s)
      : p_(params.p), training_(s.options.training), stream_(RandomStream(s.options.name)) {
    needs_ = s.Needs(s.x);
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
    JoinGradientsCpu(binding_.dy, nullptr, needs_.y, binding_.dy[0]);
    Drop(binding_.dy[0], binding_.dx[0]);
  }

 private:
  void Drop(const void* from, void* to) const {
    const StepContext& step = *binding_.step;
    const int64_t pixels = needs_.x.shape.spatial();
    Timed({"dropout", static_cast<int64_t>(2 * needs_.x.bytes())}, [&] {
      WithFloatType(needs_.x.dtype, [&]<class T>() {
        ParallelFor(needs_.x.shape.n * pixels, 1, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            const Rng rng(step.seed, stream_, step.epoch, step.samples[i / pixels]);
            DropPixel(rng, p_, needs_.x, i / pixels, i % pixels, static_cast<const T*>(from),
                      static_cast<T*>(to));
          }
        });
      });
    });
  }

  float p_;
  bool training_;
  uint32_t stream_;
};

}  // namespace

MadeOp MakeCpu(const DropoutParams& params, const OpSetup& setup) {
  return std::make_unique<DropoutCpu>(params, setup);
}

}  // namespace deeper
