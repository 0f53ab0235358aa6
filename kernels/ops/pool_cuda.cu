#include <algorithm>
#include <cmath>

#include "kernels/base/status.h"
#include "kernels/cuda/base/cuda_for_each.h"
#include "kernels/ops/cuda_pool.h"
#include "kernels/ops/join.h"
#include "kernels/ops/pool.h"

namespace deeper {
namespace {

constexpr int64_t kMostPositions = 256;  // positions in a window: one byte

// Treats NaN as larger than every number, so that it propagates.
template <class T, int N>
struct MaxPool {
  Pixels<T> x;
  PoolGeometry g;
  T* y;
  uint8_t* argmax;  // nullptr: not needed
  DEEPER_HD void operator()(int64_t i) const {
    const int64_t packs = x.channels / N, channel = i % packs * N;
    const Place at = PlaceOf(i / packs, g.rows.windows, g.columns.windows);
    const Range rows = g.rows.Pixels(at.row), columns = g.columns.Pixels(at.column);
    const int64_t top = g.rows.Start(at.row), left = g.columns.Start(at.column);
    float best[N];
    Pack<uint8_t, N> first;
    for (int j = 0; j < N; ++j) {
      best[j] = -INFINITY;
      first.v[j] = static_cast<uint8_t>((rows.begin - top) * g.columns.kernel + columns.begin - left);
    }
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      for (int64_t column = columns.begin; column < columns.end; ++column) {
        const Pack<T, N> pack = LoadPack<T, N>(x.At(g.X(at.n, row, column), channel));
        const auto position = static_cast<uint8_t>((row - top) * g.columns.kernel + column - left);
        for (int j = 0; j < N; ++j) {
          const float value = ToFloat(pack.v[j]);
          if (!(value > best[j]) && value == value) continue;
          best[j] = value;
          first.v[j] = position;
        }
      }
    }
    StorePack(y + i * N, Rounded<T>(best));
    if (argmax != nullptr) StorePack(argmax + i * N, first);
  }
};

template <class T, int N>
struct SpreadMaxPool {
  MaxPoolGradient<T, N> gradient;
  T* dx;
  DEEPER_HD void operator()(int64_t i) const {
    const int64_t packs = gradient.channels / N;
    float sum[N] = {};
    gradient.AddTo(sum, PlaceOf(i / packs, gradient.g.rows.size, gradient.g.columns.size), i % packs * N);
    StorePack(dx + i * N, Rounded<T>(sum));
  }
};

DEEPER_HD float CountOf(const Range& rows, const Range& columns) {
  return static_cast<float>((rows.end - rows.begin) * (columns.end - columns.begin));
}

template <class T, int N>
struct AveragePool {
  Pixels<T> x;
  PoolGeometry g;
  T* y;
  DEEPER_HD void operator()(int64_t i) const {
    const int64_t packs = x.channels / N, channel = i % packs * N;
    const Place at = PlaceOf(i / packs, g.rows.windows, g.columns.windows);
    const Range rows = g.rows.Pixels(at.row), columns = g.columns.Pixels(at.column);
    float sum[N] = {};
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      for (int64_t column = columns.begin; column < columns.end; ++column) {
        const Pack<T, N> pack = LoadPack<T, N>(x.At(g.X(at.n, row, column), channel));
        for (int j = 0; j < N; ++j) sum[j] += ToFloat(pack.v[j]);
      }
    }
    for (float& value : sum) value /= CountOf(rows, columns);
    StorePack(y + i * N, Rounded<T>(sum));
  }
};

template <class T, int N>
struct AveragePoolGradient {
  PoolGeometry g;
  int64_t channels;
  const T* dy;
  T* dx;
  DEEPER_HD void operator()(int64_t i) const {
    const int64_t packs = channels / N, channel = i % packs * N;
    const Place at = PlaceOf(i / packs, g.rows.size, g.columns.size);
    const Range rows = g.rows.Windows(at.row), columns = g.columns.Windows(at.column);
    float sum[N] = {};
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      for (int64_t column = columns.begin; column < columns.end; ++column) {
        const Pack<T, N> pack = LoadPack<T, N>(dy + g.Y(at.n, row, column) * channels + channel);
        const float share = 1 / CountOf(g.rows.Pixels(row), g.columns.Pixels(column));
        for (int j = 0; j < N; ++j) sum[j] += ToFloat(pack.v[j]) * share;
      }
    }
    StorePack(dx + i * N, Rounded<T>(sum));
  }
};

class PoolCuda final : public Op {
 public:
  PoolCuda(const PoolParams& params, const OpSetup& s)
      : device_(AsCuda(s.device)), max_(params.kind == PoolParams::Kind::kMax) {
    const Shape &in = s.x.shape, &y = s.shape.y;
    geometry_ = {{in.h, y.h, params.window(in.h), params.stride, params.pad},
                 {in.w, y.w, params.window(in.w), params.stride, params.pad}};
    needs_.x = s.x;
    needs_.y = device_.FeatureMap(y, s.x.dtype);
    if (!s.wants_dx()) return;
    wants_dx_ = true;
    needs_.backward_reads_y = params.mask_dx;
    needs_.takes_pooled_gradients = s.options.fuse;
    if (s.options.fuse) needs_.workspace_bytes = needs_.y.bytes();
    if (max_) needs_.saved_bytes = static_cast<size_t>(needs_.y.stored_elements());  // the argmax
    if (max_ && s.options.x_takes_pooled_gradients && !params.clamp) {
      needs_.pooled_dx = {needs_.y, params.kernel, params.stride, params.pad};
    } else {
      needs_.dx_parts = {s.x.Dense()};
    }
  }

  void Forward() override {
    const int64_t bytes = BytesOf(needs_.x) + BytesOf(needs_.y) + static_cast<int64_t>(needs_.saved_bytes);
    WithPacks(needs_.x.dtype, PackDivisor(needs_.x), [&]<class T, int N>() {
      const Pixels<T> x(needs_.x, binding_.x);
      const int64_t count = needs_.y.stored_elements() / N;
      auto* const y = static_cast<T*>(binding_.y);
      auto* const argmax = needs_.saved_bytes > 0 ? static_cast<uint8_t*>(binding_.saved) : nullptr;
      if (max_) {
        ForEach(device_, {"max pool", bytes}, count, MaxPool<T, N>{x, geometry_, y, argmax});
      } else {
        ForEach(device_, {"average pool", bytes}, count, AveragePool<T, N>{x, geometry_, y});
      }
    });
  }

  // Masking dy masks dx: the x that receives the gradient of a window equals its y.
  void Backward() override {
    if (!wants_dx_) return;
    void* const dy = needs_.pooled_dx.has_value() ? binding_.pooled_dx
                     : binding_.dy.empty()        ? binding_.workspace
                                                  : binding_.dy[0];
    JoinGradientsCuda(device_, {.desc = needs_.y,
                                .parts = binding_.dy,
                                .pooled = binding_.pooled_dy,
                                .y = needs_.backward_reads_y ? binding_.y : nullptr,
                                .targets = {{needs_.y.shape.c, dy, needs_.y.shape.c}}});
    if (needs_.pooled_dx.has_value()) return;
    const int64_t count = needs_.dx_parts[0].stored_elements();
    const int64_t bytes =
        BytesOf(needs_.dx_parts[0]) + BytesOf(needs_.y) + static_cast<int64_t>(needs_.saved_bytes);
    WithPacks(needs_.x.dtype, needs_.x.shape.c, [&]<class T, int N>() {
      const auto* const from = static_cast<const T*>(dy);
      auto* const dx = static_cast<T*>(binding_.dx[0]);
      const int64_t channels = needs_.x.shape.c;
      if (max_) {
        const auto* const argmax = static_cast<const uint8_t*>(binding_.saved);
        ForEach(device_, {"max pool gradient", bytes}, count / N,
                SpreadMaxPool<T, N>{{geometry_, channels, from, argmax}, dx});
      } else {
        ForEach(device_, {"average pool gradient", bytes}, count / N,
                AveragePoolGradient<T, N>{geometry_, channels, from, dx});
      }
    });
  }

 private:
  CudaDevice& device_;
  bool max_, wants_dx_ = false;
  PoolGeometry geometry_;
};

template <class T, int N>
struct Spread {
  int64_t pixels, channels;
  const T* dy;
  T* dx;
  DEEPER_HD void operator()(int64_t i) const {
    const int64_t packs = channels / N, n = i / (pixels * packs);
    Pack<T, N> pack = LoadPack<T, N>(dy + (n * packs + i % packs) * N);
    for (int j = 0; j < N; ++j) pack.v[j] = FromFloat<T>(ToFloat(pack.v[j]) / static_cast<float>(pixels));
    StorePack(dx + i * N, pack);
  }
};

class GlobalAvgPoolCuda final : public Op {
 public:
  explicit GlobalAvgPoolCuda(const OpSetup& s) : device_(AsCuda(s.device)) {
    needs_ = s.Needs({s.shape.y, s.x.dtype});
  }

  void Forward() override {
    const int64_t bytes = BytesOf(needs_.x) + BytesOf(needs_.y), h = needs_.x.shape.h, w = needs_.x.shape.w;
    const PoolGeometry whole = {{h, 1, h, 1, 0}, {w, 1, w, 1, 0}};
    WithPacks(needs_.x.dtype, PackDivisor(needs_.x), [&]<class T, int N>() {
      ForEach(device_, {"global average", bytes}, needs_.y.stored_elements() / N,
              AveragePool<T, N>{Pixels<T>(needs_.x, binding_.x), whole, static_cast<T*>(binding_.y)});
    });
  }
  void Backward() override {
    if (needs_.dx_parts.empty()) return;
    JoinGradientsCuda(device_, binding_.dy, nullptr, needs_.y, binding_.dy[0]);
    const int64_t bytes = BytesOf(needs_.dx_parts[0]) + BytesOf(needs_.y);
    WithPacks(needs_.x.dtype, needs_.x.shape.c, [&]<class T, int N>() {
      ForEach(device_, {"global average gradient", bytes}, needs_.dx_parts[0].stored_elements() / N,
              Spread<T, N>{needs_.x.shape.spatial(), needs_.x.shape.c, static_cast<const T*>(binding_.dy[0]),
                           static_cast<T*>(binding_.dx[0])});
    });
  }

 private:
  CudaDevice& device_;
};

}  // namespace

MadeOp MakeCuda(const PoolParams& params, const OpSetup& setup) {
  const int64_t window = params.window(setup.x.shape.h) * params.window(setup.x.shape.w);
  if (params.kind == PoolParams::Kind::kMax && window > kMostPositions) {
    return Unimplemented("pool: the window has ", window, " pixels; CUDA supports max pooling of ",
                         kMostPositions, " at most");
  }
  return std::make_unique<PoolCuda>(params, setup);
}

MadeOp MakeCuda(const GlobalAvgPoolParams&, const OpSetup& setup) {
  return std::make_unique<GlobalAvgPoolCuda>(setup);
}

}  // namespace deeper
