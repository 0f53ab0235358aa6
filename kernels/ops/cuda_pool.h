// The positions of pooling windows in an image, and how the gradient of a max pool maps back. For .cu files
// only. Indices of pixels have 32 bits, because a GPU computes with 32 bits.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/base/op.h"
#include "kernels/cuda/base/cuda_for_each.h"
#include "kernels/cuda/base/max_window.h"
#include "kernels/ops/cuda_rows.h"

namespace deeper {

struct Range {
  int begin, end;
};

// Windows along one side of the image.
struct Side {
  Side(int64_t pixels, int64_t count, int64_t length, int64_t step, int64_t padding)
      : size(static_cast<int>(pixels)),
        windows(static_cast<int>(count)),
        kernel(static_cast<int>(length)),
        stride(static_cast<int>(step)),
        pad(static_cast<int>(padding)),
        strides(step) {}
  int size, windows, kernel, stride, pad;
  Divider strides;

  // The start of a window, possibly in the padding, and the range of its pixels inside the image.
  DEEPER_HD int Start(int window) const { return window * stride - pad; }
  DEEPER_HD Range Pixels(int window) const {
    const int start = Start(window);
    return {std::max(start, 0), std::min(start + kernel, size)};
  }
  // The windows that cover a pixel.
  DEEPER_HD Range Windows(int pixel) const {
    const auto at = static_cast<uint32_t>(pixel + pad), length = static_cast<uint32_t>(kernel);
    return {at < length ? 0 : static_cast<int>(strides.Quotient(at - length)) + 1,
            std::min(static_cast<int>(strides.Quotient(at)) + 1, windows)};
  }
};

struct Place {
  int n, row, column;
};

// The pixels of images of one size, counted across all images.
struct Grid {
  Grid() = default;
  Grid(int64_t height, int64_t width) : rows(height), columns(width) {}
  Divider rows, columns;

  DEEPER_HD Place At(uint32_t pixel) const {
    const Divider::Parts line = columns.Divide(pixel);
    const Divider::Parts image = rows.Divide(static_cast<uint32_t>(line.quotient));
    return {image.quotient, image.rest, line.rest};
  }
  // The place of the next pixel.
  DEEPER_HD void Advance(Place& at) const {
    if (++at.column < static_cast<int>(columns.divisor())) return;
    at.column = 0;
    if (++at.row < static_cast<int>(rows.divisor())) return;
    at.row = 0;
    ++at.n;
  }
};

struct PoolGeometry {
  PoolGeometry(const Side& down, const Side& across)
      : rows(down), columns(across), x(down.size, across.size), y(down.windows, across.windows) {}
  Side rows, columns;
  Grid x, y;

  // Indexes of pixels of x and of y, across all images.
  DEEPER_HD int X(int n, int row, int column) const { return (n * rows.size + row) * columns.size + column; }
  DEEPER_HD int Y(int n, int row, int column) const {
    return (n * rows.windows + row) * columns.windows + column;
  }
};

inline PoolGeometry GeometryOf(const PooledPart& part, const Shape& x) {
  const Shape& y = part.desc.shape;
  return {{x.h, y.h, part.kernel, part.stride, part.pad}, {x.w, y.w, part.kernel, part.stride, part.pad}};
}

// The gradient of a max pool, gathered from the windows that cover a pixel. argmax is row * kernel + column
// in the window. dy and argmax are dense.
template <class T, int N>
struct MaxPoolGradient {
  PoolGeometry g;
  int channels;
  const T* dy;
  const uint8_t* argmax;

  DEEPER_HD void AddTo(float (&sum)[N], const Place& at, int channel) const {
    const Range rows = g.rows.Windows(at.row), columns = g.columns.Windows(at.column);
    for (int row = rows.begin; row < rows.end; ++row) {
      for (int column = columns.begin; column < columns.end; ++column) {
        const int64_t window = int64_t{g.Y(at.n, row, column)} * channels + channel;
        const auto first = LoadPack<uint8_t, N>(argmax + window);
        const Pack<float, N> values = Floats(LoadPack<T, N>(dy + window));
        const int position = (at.row - g.rows.Start(row)) * g.columns.kernel +  //
                             at.column - g.columns.Start(column);
        for (int j = 0; j < N; ++j) sum[j] += first.v[j] == position ? values.v[j] : 0.0f;
      }
    }
  }
};

// The same for windows of 3x3 with a padding of 1, at stride 1 or 2. Reads all windows that may cover the
// pixel before it uses the first.
template <class T, int N, int kStride>
struct MaxPool3x3Gradient {
  static constexpr int kWindows = kStride == 1 ? 3 : 2;  // along a side, at most
  int height, width;                                     // of y
  int argmax_bytes, dy_bytes;                            // of a pixel
  const T* dy;
  const uint8_t* argmax;

  explicit MaxPool3x3Gradient(const MaxPoolGradient<T, N>& general)
      : height(general.g.rows.windows),
        width(general.g.columns.windows),
        argmax_bytes(general.channels),
        dy_bytes(general.channels * static_cast<int>(sizeof(T))),
        dy(general.dy),
        argmax(general.argmax) {}

  // The windows along a side that cover a pixel, and the pixel's place in them, 0 to 2, times `scale`. Those
  // outside are replaced by one inside, with a place that no maximum has.
  struct Windows {
    int at[kWindows];
    uint32_t place[kWindows];

    DEEPER_HD Windows(int pixel, int windows, uint32_t scale) {
      constexpr uint32_t kNowhere = 0x40404040u;
      for (int i = 0; i < kWindows; ++i) {
        const int window = kStride == 1 ? pixel - 1 + i : pixel / 2 + i;
        const int in_window = pixel - (window * kStride - 1);
        const bool inside = static_cast<uint32_t>(window) < static_cast<uint32_t>(windows);
        const bool covers = (inside || (kStride == 1 && i == 1)) && in_window >= 0;
        at[i] = covers ? window : (kStride == 1 ? pixel : std::min(pixel / kStride, windows - 1));
        place[i] = covers ? static_cast<uint32_t>(in_window) * scale : kNowhere;
      }
    }
  };

  DEEPER_HD void AddTo(float (&sum)[N], const Place& at, int channel) const {
    static_assert(N % 4 == 0);
    constexpr uint32_t kBytes = 0x01010101u;  // a number in each byte of a word
    constexpr int kCount = kWindows * kWindows;
    const Windows rows(at.row, height, 3 * kBytes), columns(at.column, width, kBytes);
    const auto* const first = Computed(argmax + channel);
    const auto* const from = Computed(dy + channel);
    Pack<uint32_t, N / 4> firsts[kCount];
    Pack<T, N> packs[kCount];
    for (int i = 0; i < kCount; ++i) {
      const int window = (at.n * height + rows.at[i / kWindows]) * width + columns.at[i % kWindows];
      firsts[i] = *reinterpret_cast<const Pack<uint32_t, N / 4>*>(RowAt(first, window, argmax_bytes));
      packs[i] = LoadPack<T, N>(RowAt(from, window, dy_bytes));
    }
    for (int i = 0; i < kCount; ++i) {
      const uint32_t position = rows.place[i / kWindows] + columns.place[i % kWindows];
      const Pack<float, N> values = Floats(packs[i]);
      for (int j = 0; j < N; ++j) AddIfEqual(sum[j], values.v[j], firsts[i].v[j / 4], position, j % 4);
    }
  }

  // The same for a quad of pixels, those of two rows and two columns of which the first are even. Pixel i is
  // in row i / 2 and column i % 2 of the quad, and `at` counts quads. Only nine pairs of these pixels and
  // their four windows can be a maximum and its window.
  DEEPER_HD void AddToQuad(float (&sums)[4][N], const Place& at, int channel) const {
    static_assert(kStride == 2 && N % 4 == 0);
    constexpr uint32_t kBytes = 0x01010101u, kNowhere = 0x40404040u;
    const auto* const first = Computed(argmax + channel);
    const auto* const from = Computed(dy + channel);
    const bool below = at.row + 1 < height, right = at.column + 1 < width;  // windows there
    const bool exists[4] = {true, right, below, right && below};
    const int window = (at.n * height + at.row) * width + at.column;
    const int across = right ? 1 : 0, down = below ? width : 0;
    const int windows[4] = {window, window + across, window + down, window + down + across};
    Pack<uint32_t, N / 4> firsts[4];
    Pack<T, N> packs[4];
    for (int i = 0; i < 4; ++i) {
      firsts[i] = *reinterpret_cast<const Pack<uint32_t, N / 4>*>(RowAt(first, windows[i], argmax_bytes));
      packs[i] = LoadPack<T, N>(RowAt(from, windows[i], dy_bytes));
    }
    for (int i = 0; i < 4; ++i) {
      const Pack<float, N> values = Floats(packs[i]);
      for (uint32_t& word : firsts[i].v) word = exists[i] ? word : kNowhere;
      for (int pixel = 0; pixel < 4; ++pixel) {
        const int row = pixel / 2 + 1 - i / 2 * 2, column = pixel % 2 + 1 - i % 2 * 2;  // in the window
        if (row < 0 || column < 0) continue;
        const uint32_t position = static_cast<uint32_t>(row * 3 + column) * kBytes;
        for (int j = 0; j < N; ++j)
          AddIfEqual(sums[pixel][j], values.v[j], firsts[i].v[j / 4], position, j % 4);
      }
    }
  }
};

template <class T, int N>
MaxPoolGradient<T, N> GradientOf(const PooledGradient& pooled, const Shape& x) {
  return {GeometryOf(pooled.part, x), static_cast<int>(x.c), static_cast<const T*>(pooled.data),
          pooled.argmax};
}

// Calls make with this gradient, or with its MaxPool3x3Gradient if there is one.
template <class T, int N, class Make>
void WithGradient(const MaxPoolGradient<T, N>& general, const Make& make) {
  const auto is_3x3 = [&general](int stride) {
    const auto fits = [stride](const Side& side) {
      return side.kernel == 3 && side.pad == 1 && side.stride == stride;
    };
    return fits(general.g.rows) && fits(general.g.columns);
  };
  if constexpr (N % 4 == 0) {
    if (is_3x3(1)) return make(MaxPool3x3Gradient<T, N, 1>(general));
    if (is_3x3(2)) return make(MaxPool3x3Gradient<T, N, 2>(general));
  }
  make(general);
}

}  // namespace deeper
