// The positions of pooling windows in an image, and how the gradient of a max pool maps back. For .cu files
// only.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/base/op.h"
#include "kernels/cuda/base/cuda_for_each.h"
#include "kernels/ops/cuda_rows.h"

namespace deeper {

struct Range {
  int64_t begin, end;
};

// Windows along one side of the image.
struct Side {
  int64_t size, windows, kernel, stride, pad;

  // The start of a window, possibly in the padding, and the range of its pixels inside the image.
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
  int64_t n, row, column;
};

// The index of a pixel across all images of that size.
DEEPER_HD inline Place PlaceOf(int64_t pixel, int64_t height, int64_t width) {
  const int64_t line = pixel / width;
  return {line / height, line % height, pixel % width};
}

struct PoolGeometry {
  Side rows, columns;

  // Indexes of pixels of x and of y, across all images.
  DEEPER_HD int64_t X(int64_t n, int64_t row, int64_t column) const {
    return (n * rows.size + row) * columns.size + column;
  }
  DEEPER_HD int64_t Y(int64_t n, int64_t row, int64_t column) const {
    return (n * rows.windows + row) * columns.windows + column;
  }
};

inline PoolGeometry GeometryOf(const PooledPart& part, const Shape& x) {
  const Shape& y = part.desc.shape;
  return {{x.h, y.h, part.kernel, part.stride, part.pad}, {x.w, y.w, part.kernel, part.stride, part.pad}};
}

// The gradient of a max pool, gathered from the windows that cover a pixel.
template <class T, int N>
struct MaxPoolGradient {
  PoolGeometry g;
  int64_t channels;
  const T* dy;
  const uint8_t* argmax;  // row * kernel + column in the window

  DEEPER_HD void AddTo(float (&sum)[N], const Place& at, int64_t channel) const {
    const Range rows = g.rows.Windows(at.row), columns = g.columns.Windows(at.column);
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      for (int64_t column = columns.begin; column < columns.end; ++column) {
        const int64_t window = g.Y(at.n, row, column) * channels + channel;
        const auto first = LoadPack<uint8_t, N>(argmax + window);
        const auto pack = LoadPack<T, N>(dy + window);
        const int64_t position = (at.row - g.rows.Start(row)) * g.columns.kernel +  //
                                 at.column - g.columns.Start(column);
        for (int j = 0; j < N; ++j) sum[j] += first.v[j] == position ? ToFloat(pack.v[j]) : 0.0f;
      }
    }
  }
};

template <class T, int N>
MaxPoolGradient<T, N> GradientOf(const PooledGradient& pooled, const Shape& x) {
  return {GeometryOf(pooled.part, x), x.c, static_cast<const T*>(pooled.data), pooled.argmax};
}

}  // namespace deeper
