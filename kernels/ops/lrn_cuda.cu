#include <algorithm>
#include <cmath>

#include "kernels/base/status.h"
#include "kernels/cuda/base/cuda_for_each.h"
#include "kernels/ops/join.h"
#include "kernels/ops/lrn.h"

namespace deeper {
namespace {

struct Norm {
  int64_t channels, half;  // each sum covers the channels at most `half` away
  float alpha, beta, k;    // alpha is already divided by the size

  // The range of channels whose sums include a pack of `width` channels.
  DEEPER_HD int64_t Begin(int64_t channel) const { return std::max<int64_t>(channel - half, 0); }
  DEEPER_HD int64_t End(int64_t channel, int width) const {
    return std::min(channel + width + half, channels);
  }
  DEEPER_HD bool Near(int64_t a, int64_t b) const { return a - b <= half && b - a <= half; }

  // The base of the power -beta at a channel of a pixel.
  template <class T>
  DEEPER_HD float Base(const T* pixel, int64_t channel) const {
    float sum = 0;
    for (int64_t c = Begin(channel), end = End(channel, 1); c < end; ++c) {
      const float x = ToFloat(pixel[c]);
      sum += x * x;
    }
    return k + alpha * sum;
  }
  DEEPER_HD float Power(float base) const {
    if (beta != 0.75f) return std::pow(base, -beta);
    const float root = std::sqrt(base);
    return 1 / (root * std::sqrt(root));
  }
};

template <class T, int N>
struct Lrn {
  Norm norm;
  const T* x;
  T* y;
  DEEPER_HD void operator()(int64_t i) const {
    const int64_t channel = i % (norm.channels / N) * N;
    const T* const pixel = x + (i * N - channel);
    float squares[N] = {};
    for (int64_t c = norm.Begin(channel), end = norm.End(channel, N); c < end; ++c) {
      const float value = ToFloat(pixel[c]);
      for (int j = 0; j < N; ++j) squares[j] += norm.Near(c, channel + j) ? value * value : 0.0f;
    }
    Pack<T, N> pack = LoadPack<T, N>(pixel + channel);
    for (int j = 0; j < N; ++j) {
      pack.v[j] = FromFloat<T>(ToFloat(pack.v[j]) * norm.Power(norm.k + norm.alpha * squares[j]));
    }
    StorePack(y + i * N, pack);
  }
};

// dx[j] = dy[j] base[j]^-beta - 2 alpha beta x[j] * sum of dy[c] x[c] base[c]^(-beta - 1) over the channels
// around j. Reading x again is cheaper than saving the bases.
template <class T, int N>
struct LrnGradient {
  Norm norm;
  const T* x;
  const T* dy;
  T* dx;
  DEEPER_HD void operator()(int64_t i) const {
    const int64_t channel = i % (norm.channels / N) * N, pixel = i * N - channel;
    float own[N] = {}, shared[N] = {};
    for (int64_t c = norm.Begin(channel), end = norm.End(channel, N); c < end; ++c) {
      const float base = norm.Base(x + pixel, c);
      const float direct = ToFloat(dy[pixel + c]) * norm.Power(base);
      const float indirect = direct * ToFloat(x[pixel + c]) / base;
      for (int j = 0; j < N; ++j) {
        if (c == channel + j) own[j] = direct;
        if (norm.Near(c, channel + j)) shared[j] += indirect;
      }
    }
    Pack<T, N> pack = LoadPack<T, N>(x + i * N);
    for (int j = 0; j < N; ++j) {
      pack.v[j] = FromFloat<T>(own[j] - 2 * norm.alpha * norm.beta * ToFloat(pack.v[j]) * shared[j]);
    }
    StorePack(dx + i * N, pack);
  }
};

class LrnCuda final : public Op {
 public:
  LrnCuda(const LrnParams& params, const OpSetup& s)
      : device_(AsCuda(s.device)),
        norm_{s.x.shape.c, params.size / 2, params.alpha / static_cast<float>(params.size), params.beta,
              params.k} {
    needs_ = s.Needs(s.x);
    needs_.backward_reads_x = !needs_.dx_parts.empty();
  }

  void Forward() override {
    WithPacks(needs_.x.dtype, norm_.channels, [&]<class T, int N>() {
      ForEach(device_, {"lrn", 2 * bytes()}, needs_.x.stored_elements() / N,
              Lrn<T, N>{norm_, static_cast<const T*>(binding_.x), static_cast<T*>(binding_.y)});
    });
  }
  void Backward() override {
    if (needs_.dx_parts.empty()) return;
    JoinGradientsCuda(device_, binding_.dy, nullptr, needs_.y, binding_.dy[0]);
    WithPacks(needs_.x.dtype, norm_.channels, [&]<class T, int N>() {
      ForEach(device_, {"lrn gradient", 3 * bytes()}, needs_.x.stored_elements() / N,
              LrnGradient<T, N>{norm_, static_cast<const T*>(binding_.x),
                                static_cast<const T*>(binding_.dy[0]), static_cast<T*>(binding_.dx[0])});
    });
  }

 private:
  int64_t bytes() const { return static_cast<int64_t>(needs_.x.bytes()); }

  CudaDevice& device_;
  Norm norm_;
};

}  // namespace

MadeOp MakeCuda(const LrnParams& params, const OpSetup& s) {
  if (s.x.dtype != DType::kF32 && s.x.dtype != DType::kBf16) {
    return Unimplemented("lrn: no kernel for ", NameOf(s.x.dtype));
  }
  return std::make_unique<LrnCuda>(params, s);
}

}  // namespace deeper
