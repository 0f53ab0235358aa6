#include <algorithm>
#include <cmath>
#include <type_traits>

#include "kernels/base/status.h"
#include "kernels/cuda/base/cuda_for_each.h"
#include "kernels/cuda/base/max_window.h"
#include "kernels/ops/cuda_pool.h"
#include "kernels/ops/join.h"
#include "kernels/ops/pool.h"

namespace deeper {
namespace {

constexpr int64_t kMostPositions = 256;  // positions in a window: one byte

// Treats NaN as larger than every number, so that it propagates.
template <class T, int N>
struct MaxPool {
  Divider packs;
  Pixels<T> x;
  PoolGeometry g;
  T* y;
  uint8_t* argmax;  // nullptr: not needed
  static constexpr int kLoads = 1;
  int64_t Iterations() const { return int64_t{g.rows.kernel} * g.columns.kernel; }
  DEEPER_HD void operator()(int64_t i) const {
    const auto [pixel, pack_index] = packs.Divide(static_cast<uint32_t>(i));
    const int channel = pack_index * N;
    const Place at = g.y.At(static_cast<uint32_t>(pixel));
    const Range rows = g.rows.Pixels(at.row), columns = g.columns.Pixels(at.column);
    const int top = g.rows.Start(at.row), left = g.columns.Start(at.column);
    float best[N];
    Pack<uint8_t, N> first;
    for (int j = 0; j < N; ++j) {
      best[j] = -INFINITY;
      first.v[j] = static_cast<uint8_t>((rows.begin - top) * g.columns.kernel + columns.begin - left);
    }
    for (int row = rows.begin; row < rows.end; ++row) {
      for (int column = columns.begin; column < columns.end; ++column) {
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

// The same for windows of 3x3 and bf16.
struct MaxPool3x3 {
  static constexpr int N = 8;
  Divider packs;
  PoolGeometry g;
  const bf16* x;
  int x_pixel_bytes;
  int first_centre;  // row and column of the centre of the first window
  bf16* y;
  uint8_t* argmax;  // nullptr: not needed
  bool masks;       // kNoMaximum for maxima that are not positive

  static bool Fits(const PoolGeometry& g) {
    const auto fits = [](const Side& side) {
      const bool centres_inside = side.Start(side.windows - 1) + 1 < side.size;
      return side.kernel == 3 && side.pad <= 1 && centres_inside;
    };
    return fits(g.rows) && fits(g.columns);
  }
  DEEPER_HD void operator()(int64_t i) const {
    const auto [pixel, pack] = packs.Divide(static_cast<uint32_t>(i));
    const Place at = g.y.At(static_cast<uint32_t>(pixel));
    const int row = at.row * g.rows.stride + first_centre;
    const int column = at.column * g.columns.stride + first_centre;
    const bf16* const from = Computed(RowAt(x, pack, sizeof(Octet)));
    const Maxima maxima = MaximaOf(CentreAt(g.X(at.n, row, column), row, column, g.rows.size, g.columns.size),
                                   [&](int of_x) { return RowAt(from, of_x, x_pixel_bytes); });
    const auto to = static_cast<int>(i);
    *reinterpret_cast<Octet*>(RowAt(y, to, sizeof(Octet))) = maxima.values;
    if (argmax == nullptr) return;
    const Positions positions = masks ? MaskedPositions(maxima) : maxima.positions;
    *reinterpret_cast<Positions*>(RowAt(argmax, to, sizeof(Positions))) = positions;
  }
};

template <class T, int N, class Gradient>
struct SpreadMaxPool {
  Divider packs;
  Grid pixels;
  Gradient gradient;
  T* dx;
  DEEPER_HD void operator()(int64_t i) const {
    const auto [pixel, pack] = packs.Divide(static_cast<uint32_t>(i));
    float sum[N] = {};
    gradient.AddTo(sum, pixels.At(static_cast<uint32_t>(pixel)), pack * N);
    StorePack(dx + i * N, Rounded<T>(sum));
  }
};

DEEPER_HD float CountOf(const Range& rows, const Range& columns) {
  return static_cast<float>((rows.end - rows.begin) * (columns.end - columns.begin));
}

template <class T, int N>
struct AveragePool {
  Divider packs;
  Pixels<T> x;
  PoolGeometry g;
  T* y;
  static constexpr int kLoads = 1;
  int64_t Iterations() const { return int64_t{g.rows.kernel} * g.columns.kernel; }
  DEEPER_HD void operator()(int64_t i) const {
    const auto [pixel, pack_index] = packs.Divide(static_cast<uint32_t>(i));
    const int channel = pack_index * N;
    const Place at = g.y.At(static_cast<uint32_t>(pixel));
    const Range rows = g.rows.Pixels(at.row), columns = g.columns.Pixels(at.column);
    float sum[N] = {};
    for (int row = rows.begin; row < rows.end; ++row) {
      for (int column = columns.begin; column < columns.end; ++column) {
        const auto values = Floats(LoadPack<T, N>(x.At(g.X(at.n, row, column), channel)));
        for (int j = 0; j < N; ++j) sum[j] += values.v[j];
      }
    }
    for (float& value : sum) value /= CountOf(rows, columns);
    StorePack(y + i * N, Rounded<T>(sum));
  }
};

template <class T, int N>
struct AveragePoolGradient {
  Divider packs;
  PoolGeometry g;
  int channels;
  const T* dy;
  T* dx;
  DEEPER_HD void operator()(int64_t i) const {
    const auto [pixel, pack_index] = packs.Divide(static_cast<uint32_t>(i));
    const int channel = pack_index * N;
    const Place at = g.x.At(static_cast<uint32_t>(pixel));
    const Range rows = g.rows.Windows(at.row), columns = g.columns.Windows(at.column);
    float sum[N] = {};
    // Two by two windows at once: all that there are, if windows overlap by less than two strides.
    DEEPER_NO_UNROLL
    for (int row = rows.begin; row < rows.end; row += 2) {
      DEEPER_NO_UNROLL
      for (int column = columns.begin; column < columns.end; column += 2) {
        Pack<T, N> loaded[4];
        DEEPER_UNROLL
        for (int w = 0; w < 4; ++w) {
          const int y =
              g.Y(at.n, std::min(row + w / 2, rows.end - 1), std::min(column + w % 2, columns.end - 1));
          loaded[w] = LoadPack<T, N>(dy + int64_t{y} * channels + channel);
        }
        DEEPER_UNROLL
        for (int w = 0; w < 4; ++w) {
          if (row + w / 2 >= rows.end || column + w % 2 >= columns.end) continue;
          const auto values = Floats(loaded[w]);
          const float share = 1 / CountOf(g.rows.Pixels(row + w / 2), g.columns.Pixels(column + w % 2));
          for (int j = 0; j < N; ++j) sum[j] += values.v[j] * share;
        }
      }
    }
    StorePack(dx + i * N, Rounded<T>(sum));
  }
};

class PoolCuda final : public Op {
 public:
  PoolCuda(const PoolParams& params, const OpSetup& s)
      : device_(AsCuda(s.device)),
        max_(params.kind == PoolParams::Kind::kMax),
        geometry_(Along(params, s.x.shape.h, s.shape.y.h), Along(params, s.x.shape.w, s.shape.y.w)),
        is_3x3_(max_ && s.x.dtype == DType::kBf16 && PackDivisor(s.x) % MaxPool3x3::N == 0 &&
                MaxPool3x3::Fits(geometry_)),
        masks_argmax_(is_3x3_ && params.mask_dx) {
    const Shape& y = s.shape.y;
    needs_.x = s.x;
    needs_.y = device_.FeatureMap(y, s.x.dtype);
    if (!s.wants_dx()) return;
    wants_dx_ = true;
    needs_.backward_reads_y = params.mask_dx && !masks_argmax_;
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
      const Divider packs(x.channels / N);
      if (!max_) {
        ForEach(device_, {"average pool", bytes}, count, AveragePool<T, N>{packs, x, geometry_, y});
        return;
      }
      if constexpr (std::is_same_v<T, bf16> && N == MaxPool3x3::N) {
        if (is_3x3_) {
          const int pixel_bytes = static_cast<int>(x.pitch * int64_t{sizeof(T)});
          ForEach(device_, {"max pool", bytes}, count,
                  MaxPool3x3{packs, geometry_, x.data, pixel_bytes, 1 - geometry_.rows.pad, y, argmax,
                             masks_argmax_});
          return;
        }
      }
      ForEach(device_, {"max pool", bytes}, count, MaxPool<T, N>{packs, x, geometry_, y, argmax});
    });
  }

  // Masking dy masks dx: the x that receives the gradient of a window equals its y. So do the positions, if a
  // masked maximum has none.
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
      const auto channels = static_cast<int>(needs_.x.shape.c);
      const Divider packs(channels / N);
      if (max_) {
        const auto* const argmax = static_cast<const uint8_t*>(binding_.saved);
        const MaxPoolGradient<T, N> general = {geometry_, channels, from, argmax};
        WithGradient(general, [&]<class Gradient>(const Gradient& gradient) {
          ForEach(device_, {"max pool gradient", bytes}, count / N,
                  SpreadMaxPool<T, N, Gradient>{packs, geometry_.x, gradient, dx});
        });
      } else {
        ForEach(device_, {"average pool gradient", bytes}, count / N,
                AveragePoolGradient<T, N>{packs, geometry_, channels, from, dx});
      }
    });
  }

 private:
  static Side Along(const PoolParams& params, int64_t size, int64_t windows) {
    return {size, windows, params.window(size), params.stride, params.pad};
  }

  CudaDevice& device_;
  const bool max_;
  const PoolGeometry geometry_;
  const bool is_3x3_;        // MaxPool3x3
  const bool masks_argmax_;  // by the ReLU before the pool, in Forward
  bool wants_dx_ = false;
};

template <class T, int N>
struct Spread {
  Divider packs, pixels;
  const T* dy;
  T* dx;
  DEEPER_HD void operator()(int64_t i) const {
    const auto [pixel, pack_index] = packs.Divide(static_cast<uint32_t>(i));
    const auto n = static_cast<int64_t>(pixels.Quotient(static_cast<uint32_t>(pixel)));
    Pack<float, N> values = Floats(LoadPack<T, N>(dy + (n * packs.divisor() + pack_index) * N));
    for (float& value : values.v) value /= static_cast<float>(pixels.divisor());
    StorePack(dx + i * N, Rounded<T>(values.v));
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
              AveragePool<T, N>{Divider(needs_.x.shape.c / N), Pixels<T>(needs_.x, binding_.x), whole,
                                static_cast<T*>(binding_.y)});
    });
  }
  void Backward() override {
    if (needs_.dx_parts.empty()) return;
    JoinGradientsCuda(device_, binding_.dy, nullptr, needs_.y, binding_.dy[0]);
    const int64_t bytes = BytesOf(needs_.dx_parts[0]) + BytesOf(needs_.y);
    WithPacks(needs_.x.dtype, needs_.x.shape.c, [&]<class T, int N>() {
      ForEach(device_, {"global average gradient", bytes}, needs_.dx_parts[0].stored_elements() / N,
              Spread<T, N>{Divider(needs_.x.shape.c / N), Divider(needs_.x.shape.spatial()),
                           static_cast<const T*>(binding_.dy[0]), static_cast<T*>(binding_.dx[0])});
    });
  }

 private:
  CudaDevice& device_;
};

absl::Status CheckIndices(const Shape& x) {
  if (x.elements() < kMostIndices) return absl::OkStatus();
  return ResourceExhausted("pool: ", x.elements(), " elements; CUDA supports fewer than ", kMostIndices,
                           ". Use a smaller batch");
}

}  // namespace

MadeOp MakeCuda(const PoolParams& params, const OpSetup& setup) {
  RETURN_IF_ERROR(CheckIndices(setup.x.shape));
  const int64_t window = params.window(setup.x.shape.h) * params.window(setup.x.shape.w);
  if (params.kind == PoolParams::Kind::kMax && window > kMostPositions) {
    return Unimplemented("pool: the window has ", window, " pixels; CUDA supports max pooling of ",
                         kMostPositions, " at most");
  }
  return std::make_unique<PoolCuda>(params, setup);
}

MadeOp MakeCuda(const GlobalAvgPoolParams&, const OpSetup& setup) {
  RETURN_IF_ERROR(CheckIndices(setup.x.shape));
  return std::make_unique<GlobalAvgPoolCuda>(setup);
}

}  // namespace deeper
