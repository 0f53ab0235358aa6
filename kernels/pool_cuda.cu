#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/cuda_for_each.h"
#include "kernels/join.h"
#include "kernels/pool.h"

namespace deeper {
namespace {

constexpr int64_t kMostPositions = 256;  // of the maximum in its window: one byte

struct Range {
  int64_t begin, end;
};

// Windows along one side of the image.
struct Side {
  int64_t size, windows, kernel, stride, pad;

  // Where a window begins, maybe in the padding, and which of its pixels lie in the image.
  DEEPER_HD int64_t Start(int64_t window) const { return window * stride - pad; }
  DEEPER_HD Range Pixels(int64_t window) const {
    const int64_t start = Start(window);
    return {std::max<int64_t>(start, 0), std::min(start + kernel, size)};
  }
  // The windows that cover a pixel.
  DEEPER_HD Range Windows(int64_t pixel) const {
    const int64_t at = pixel + pad;
    return {at < kernel ? 0 : (at - kernel) / stride + 1, std::min(at / stride + 1, windows)};
  }
};

struct Place {
  int64_t n, row, column, channel;
};

struct Geometry {
  Side rows, columns;
  int64_t channels;

  DEEPER_HD int64_t X(int64_t n, int64_t row, int64_t column, int64_t channel) const {
    return ((n * rows.size + row) * columns.size + column) * channels + channel;
  }
  DEEPER_HD int64_t Y(int64_t n, int64_t row, int64_t column, int64_t channel) const {
    return ((n * rows.windows + row) * columns.windows + column) * channels + channel;
  }
  // Of pack i of an image of that many rows and columns.
  template <int N>
  DEEPER_HD Place PlaceOf(int64_t i, int64_t height, int64_t width) const {
    const int64_t packs = channels / N, pixel = i / packs, line = pixel / width;
    return {line / height, line % height, pixel % width, i % packs * N};
  }
};

// A NaN is larger than everything, so that it shows.
template <class T, int N>
struct MaxPool {
  Geometry g;
  const T* x;
  T* y;
  uint8_t* argmax;  // nullptr: not wanted
  DEEPER_HD void operator()(int64_t i) const {
    const Place at = g.PlaceOf<N>(i, g.rows.windows, g.columns.windows);
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
        const Pack<T, N> pack = LoadPack<T, N>(x + g.X(at.n, row, column, at.channel));
        const auto position = static_cast<uint8_t>((row - top) * g.columns.kernel + column - left);
        for (int j = 0; j < N; ++j) {
          const float value = ToFloat(pack.v[j]);
          if (!(value > best[j]) && value == value) continue;
          best[j] = value;
          first.v[j] = position;
        }
      }
    }
    Pack<T, N> out;
    for (int j = 0; j < N; ++j) out.v[j] = FromFloat<T>(best[j]);
    StorePack(y + i * N, out);
    if (argmax != nullptr) StorePack(argmax + i * N, first);
  }
};

// Gathers from the windows that cover a pixel of x.
template <class T, int N>
struct MaxPoolGradient {
  Geometry g;
  const uint8_t* argmax;
  const T* dy;
  T* dx;
  DEEPER_HD void operator()(int64_t i) const {
    const Place at = g.PlaceOf<N>(i, g.rows.size, g.columns.size);
    const Range rows = g.rows.Windows(at.row), columns = g.columns.Windows(at.column);
    float sum[N] = {};
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      for (int64_t column = columns.begin; column < columns.end; ++column) {
        const int64_t window = g.Y(at.n, row, column, at.channel);
        const auto first = LoadPack<uint8_t, N>(argmax + window);
        const auto pack = LoadPack<T, N>(dy + window);
        const int64_t position = (at.row - g.rows.Start(row)) * g.columns.kernel +  //
                                 at.column - g.columns.Start(column);
        for (int j = 0; j < N; ++j) sum[j] += first.v[j] == position ? ToFloat(pack.v[j]) : 0.0f;
      }
    }
    Pack<T, N> out;
    for (int j = 0; j < N; ++j) out.v[j] = FromFloat<T>(sum[j]);
    StorePack(dx + i * N, out);
  }
};

DEEPER_HD float CountOf(const Range& rows, const Range& columns) {
  return static_cast<float>((rows.end - rows.begin) * (columns.end - columns.begin));
}

template <class T, int N>
struct AveragePool {
  Geometry g;
  const T* x;
  T* y;
  DEEPER_HD void operator()(int64_t i) const {
    const Place at = g.PlaceOf<N>(i, g.rows.windows, g.columns.windows);
    const Range rows = g.rows.Pixels(at.row), columns = g.columns.Pixels(at.column);
    float sum[N] = {};
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      for (int64_t column = columns.begin; column < columns.end; ++column) {
        const Pack<T, N> pack = LoadPack<T, N>(x + g.X(at.n, row, column, at.channel));
        for (int j = 0; j < N; ++j) sum[j] += ToFloat(pack.v[j]);
      }
    }
    const float count = CountOf(rows, columns);
    Pack<T, N> out;
    for (int j = 0; j < N; ++j) out.v[j] = FromFloat<T>(sum[j] / count);
    StorePack(y + i * N, out);
  }
};

template <class T, int N>
struct AveragePoolGradient {
  Geometry g;
  const T* dy;
  T* dx;
  DEEPER_HD void operator()(int64_t i) const {
    const Place at = g.PlaceOf<N>(i, g.rows.size, g.columns.size);
    const Range rows = g.rows.Windows(at.row), columns = g.columns.Windows(at.column);
    float sum[N] = {};
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      for (int64_t column = columns.begin; column < columns.end; ++column) {
        const Pack<T, N> pack = LoadPack<T, N>(dy + g.Y(at.n, row, column, at.channel));
        const float share = 1 / CountOf(g.rows.Pixels(row), g.columns.Pixels(column));
        for (int j = 0; j < N; ++j) sum[j] += ToFloat(pack.v[j]) * share;
      }
    }
    Pack<T, N> out;
    for (int j = 0; j < N; ++j) out.v[j] = FromFloat<T>(sum[j]);
    StorePack(dx + i * N, out);
  }
};

class PoolCuda final : public Op {
 public:
  PoolCuda(const PoolParams& params, const Shape& y, const TensorDesc& x, const OpOptions& options,
           CudaDevice& device)
      : device_(device), max_(params.kind == PoolParams::Kind::kMax), mask_dx_(params.mask_dx) {
    needs_.x = needs_.y = x;
    needs_.y.shape = y;
    if (options.training && options.want_dx) needs_.dx_parts = {x};
    keeps_argmax_ = max_ && !needs_.dx_parts.empty();
    if (keeps_argmax_) needs_.saved_bytes = static_cast<size_t>(needs_.y.stored_elements());
    needs_.backward_reads_y = mask_dx_ && !needs_.dx_parts.empty();
    const Shape& in = x.shape;
    geometry_ = {{in.h, y.h, params.window(in.h), params.stride, params.pad},
                 {in.w, y.w, params.window(in.w), params.stride, params.pad},
                 in.c};
  }

  void Forward() override {
    const int64_t count = needs_.y.stored_elements();
    const auto bytes = static_cast<int64_t>(needs_.x.bytes() + needs_.y.bytes() + needs_.saved_bytes);
    WithPacks(needs_.x.dtype, geometry_.channels, [&](auto zero, auto width) {
      using T = decltype(zero);
      constexpr int N = width;
      const auto* const x = static_cast<const T*>(binding_.x);
      auto* const y = static_cast<T*>(binding_.y);
      auto* const argmax = keeps_argmax_ ? static_cast<uint8_t*>(binding_.saved) : nullptr;
      if (max_) {
        ForEach(device_, {"max pool", bytes}, count / N, MaxPool<T, N>{geometry_, x, y, argmax});
      } else {
        ForEach(device_, {"average pool", bytes}, count / N, AveragePool<T, N>{geometry_, x, y});
      }
    });
  }
  void Backward() override {
    if (needs_.dx_parts.empty()) return;
    // Masking dy masks dx: the x that takes the gradient of a window equals its y.
    JoinGradientsCuda(device_, binding_.dy, mask_dx_ ? binding_.y : nullptr, needs_.y, binding_.dy[0],
                      nullptr, nullptr);
    const int64_t count = needs_.x.stored_elements();
    const auto bytes = static_cast<int64_t>(needs_.x.bytes() + needs_.y.bytes() + needs_.saved_bytes);
    WithPacks(needs_.x.dtype, geometry_.channels, [&](auto zero, auto width) {
      using T = decltype(zero);
      constexpr int N = width;
      const auto* const dy = static_cast<const T*>(binding_.dy[0]);
      auto* const dx = static_cast<T*>(binding_.dx[0]);
      const auto* const argmax = static_cast<const uint8_t*>(binding_.saved);
      if (max_) {
        ForEach(device_, {"max pool gradient", bytes}, count / N,
                MaxPoolGradient<T, N>{geometry_, argmax, dy, dx});
      } else {
        ForEach(device_, {"average pool gradient", bytes}, count / N,
                AveragePoolGradient<T, N>{geometry_, dy, dx});
      }
    });
  }

 private:
  CudaDevice& device_;
  bool max_, mask_dx_, keeps_argmax_ = false;
  Geometry geometry_;
};

template <class T, int N>
struct Average {
  int64_t pixels, channels;
  const T* x;
  T* y;
  DEEPER_HD void operator()(int64_t i) const {
    const int64_t packs = channels / N;
    const T* from = x + (i / packs * pixels * packs + i % packs) * N;
    float sum[N] = {};
    for (int64_t p = 0; p < pixels; ++p, from += channels) {
      const Pack<T, N> pack = LoadPack<T, N>(from);
      for (int j = 0; j < N; ++j) sum[j] += ToFloat(pack.v[j]);
    }
    Pack<T, N> out;
    for (int j = 0; j < N; ++j) out.v[j] = FromFloat<T>(sum[j] / static_cast<float>(pixels));
    StorePack(y + i * N, out);
  }
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
  GlobalAvgPoolCuda(const TensorDesc& x, const OpOptions& options, CudaDevice& device) : device_(device) {
    needs_.x = x;
    needs_.y = {{x.shape.n, x.shape.c}, x.dtype};
    if (options.training && options.want_dx) needs_.dx_parts = {x};
  }

  void Forward() override {
    const auto bytes = static_cast<int64_t>(needs_.x.bytes() + needs_.y.bytes());
    WithPacks(needs_.x.dtype, needs_.x.shape.c, [&](auto zero, auto width) {
      using T = decltype(zero);
      constexpr int N = width;
      ForEach(device_, {"global average", bytes}, needs_.y.stored_elements() / N,
              Average<T, N>{needs_.x.shape.spatial(), needs_.x.shape.c, static_cast<const T*>(binding_.x),
                            static_cast<T*>(binding_.y)});
    });
  }
  void Backward() override {
    if (needs_.dx_parts.empty()) return;
    JoinGradientsCuda(device_, binding_.dy, nullptr, needs_.y, binding_.dy[0], nullptr, nullptr);
    const auto bytes = static_cast<int64_t>(needs_.x.bytes() + needs_.y.bytes());
    WithPacks(needs_.x.dtype, needs_.x.shape.c, [&](auto zero, auto width) {
      using T = decltype(zero);
      constexpr int N = width;
      ForEach(device_, {"global average gradient", bytes}, needs_.x.stored_elements() / N,
              Spread<T, N>{needs_.x.shape.spatial(), needs_.x.shape.c, static_cast<const T*>(binding_.dy[0]),
                           static_cast<T*>(binding_.dx[0])});
    });
  }

 private:
  CudaDevice& device_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Op>> MakePoolCuda(const PoolParams& params, const Shape& y,
                                                 const TensorDesc& x, const OpOptions& options,
                                                 Device& device) {
  const int64_t window = params.window(x.shape.h) * params.window(x.shape.w);
  if (params.kind == PoolParams::Kind::kMax && window > kMostPositions) {
    return absl::UnimplementedError(absl::StrCat(
        "pool: the maximum of ", window, " pixels; CUDA has kernels for ", kMostPositions, " at most"));
  }
  return std::make_unique<PoolCuda>(params, y, x, options, AsCuda(device));
}

std::unique_ptr<Op> MakeGlobalAvgPoolCuda(const TensorDesc& x, const OpOptions& options, Device& device) {
  return std::make_unique<GlobalAvgPoolCuda>(x, options, AsCuda(device));
}

}  // namespace deeper
