#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/base/bf16.h"
#include "kernels/base/parallel.h"
#include "kernels/cuda/base/max_window.h"
#include "kernels/cuda/plans/cuda_algorithm.h"
#include "tests/kernels/host_plans.h"

namespace deeper::testing {
namespace {

using Floats = std::vector<float>;

Floats Load(const void* from, DType dtype, int64_t count) {
  Floats values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    values[i] = dtype == DType::kBf16 ? ToFloat(static_cast<const bf16*>(from)[i])
                                      : static_cast<const float*>(from)[i];
  }
  return values;
}

// `rows` rows of `columns` elements, `pitch` elements from one to the next, as a dense matrix.
Floats LoadRows(const void* from, DType dtype, int64_t rows, int64_t columns, int64_t pitch) {
  Floats values;
  for (int64_t row = 0; row < rows; ++row) {
    const auto* at = static_cast<const std::byte*>(from) + static_cast<size_t>(row * pitch) * SizeOf(dtype);
    const Floats loaded = Load(at, dtype, columns);
    values.insert(values.end(), loaded.begin(), loaded.end());
  }
  return values;
}

void Store(const Floats& values, DType dtype, void* to) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kBf16) {
      static_cast<bf16*>(to)[i] = ToBf16(values[i]);
    } else {
      static_cast<float*>(to)[i] = values[i];
    }
  }
}

void StoreRows(const Floats& values, DType dtype, int64_t columns, int64_t pitch, void* to) {
  for (size_t row = 0; row * static_cast<size_t>(columns) < values.size(); ++row) {
    const auto first = values.begin() + static_cast<int64_t>(row) * columns;
    Store(Floats(first, first + columns), dtype,
          static_cast<std::byte*>(to) + row * static_cast<size_t>(pitch) * SizeOf(dtype));
  }
}

float Dot(const float* a, const float* b, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += double{a[i]} * b[i];
  return static_cast<float>(sum);
}

void AddScaled(float factor, const float* x, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] += factor * x[i];
}

// Calls visit(output row or column, tap) for the taps through which input position `at` reaches an output.
template <class Visit>
void ForEachOutput(int64_t at, const ConvolutionProblem& p, int64_t outputs, const Visit& visit) {
  for (int64_t tap = 0; tap < p.kernel; ++tap) {
    const int64_t start = at + p.pad - tap;
    if (start >= 0 && start % p.stride == 0 && start / p.stride < outputs) visit(start / p.stride, tap);
  }
}

// Calls visit(input row or column, tap) for the taps of output `out` that lie inside the image.
template <class Visit>
void ForEachInput(int64_t out, const ConvolutionProblem& p, int64_t inputs, const Visit& visit) {
  for (int64_t tap = 0; tap < p.kernel; ++tap) {
    const int64_t at = out * p.stride - p.pad + tap;
    if (at >= 0 && at < inputs) visit(at, tap);
  }
}

class HostConvolution final : public CudaPlan {
 public:
  explicit HostConvolution(const ConvolutionProblem& problem) : p_(problem) {}

  void Run(const PlanOperands& o) override {
    const int64_t w = p_.k * p_.kernel * p_.kernel * p_.c;
    switch (p_.pass) {
      case ConvolutionProblem::Pass::kForward:
        return StorePixels(PoolY(Forward(LoadX(o.a, o.argmax), Load(o.b, p_.dtype, w), o.bias), o.argmax),
                           p_.k, p_.PitchOfY(), o.d);
      case ConvolutionProblem::Pass::kBackwardData: {
        Floats dx = BackwardData(LoadY(o.a), Load(o.b, p_.dtype, w));
        if (p_.mask_dx) Mask(o.mask, dx, o.sums);
        return StorePixels(dx, p_.c, p_.PitchOfX(), o.d);
      }
      case ConvolutionProblem::Pass::kBackwardWeights:
        return Store(Narrowed(BackwardWeights(LoadX(o.a, nullptr), p_.pool_y ? SpreadY(o) : LoadY(o.b), w)),
                     p_.dw_dtype(), o.d);
    }
  }

 private:
  int64_t PixelsOfX() const { return p_.n * p_.h * p_.w; }
  int64_t PixelsOfY() const { return p_.n * p_.out_h() * p_.out_w(); }
  Floats LoadX(const void* from, uint8_t* argmax) const {
    Floats x = LoadRows(from, p_.dtype, PixelsOfX(), p_.c, p_.PitchOfX());
    return p_.pool_x ? MaxPool(x, p_.h, p_.w, p_.c, 1, argmax) : x;
  }
  // The gradient of the output of the convolution, as it would be stored, and its sums.
  Floats SpreadY(const PlanOperands& o) const {
    const Floats dy = Load(o.b, p_.dtype, p_.n * p_.y_h() * p_.y_w() * p_.k);
    Floats dz(static_cast<size_t>(PixelsOfY() * p_.k));
    for (int64_t i = 0; i < std::ssize(dy); ++i) {
      if (o.argmax[i] == kNoMaximum) continue;
      const int64_t window = i / p_.k, n = window / (p_.y_h() * p_.y_w());
      const int64_t row = window / p_.y_w() % p_.y_h() * 2 - 1 + o.argmax[i] / 3;
      const int64_t column = window % p_.y_w() * 2 - 1 + o.argmax[i] % 3;
      dz[PixelOfY(n, row, column) + i % p_.k] += dy[i];
    }
    std::fill_n(o.sums, p_.k, 0.0f);
    for (size_t i = 0; i < dz.size(); ++i) {
      dz[i] = ToFloat(ToBf16(dz[i]));
      o.sums[i % static_cast<size_t>(p_.k)] += dz[i];
    }
    return dz;
  }
  // Of the output as a convolution alone would store it.
  Floats PoolY(Floats y, uint8_t* argmax) const {
    if (!p_.pool_y) return y;
    for (float& value : y) value = ToFloat(ToBf16(value));
    Floats pooled = MaxPool(y, p_.out_h(), p_.out_w(), p_.k, 2, argmax);
    for (size_t i = 0; argmax != nullptr && i < pooled.size(); ++i) {
      if (!(pooled[i] > 0)) argmax[i] = kNoMaximum;
    }
    return pooled;
  }
  // As by a library, so that all that a tuner may choose has the same bits.
  Floats Narrowed(Floats dw) const {
    for (size_t i = 0; p_.wide_dw && i < dw.size(); ++i) dw[i] = ToFloat(ToBf16(dw[i]));
    return dw;
  }
  Floats LoadY(const void* y) const { return LoadRows(y, p_.dtype, PixelsOfY(), p_.k, p_.PitchOfY()); }
  void StorePixels(const Floats& values, int64_t channels, int64_t pitch, void* to) const {
    StoreRows(values, p_.dtype, channels, pitch, to);
  }

  // The sums are those of the elements as they are stored.
  void Mask(const void* mask, Floats& dx, float* sums) const {
    const Floats x = LoadRows(mask, p_.dtype, PixelsOfX(), p_.c, p_.PitchOfMask());
    std::fill_n(sums, p_.c, 0.0f);
    for (size_t i = 0; i < dx.size(); ++i) {
      if (!(x[i] > 0)) dx[i] = 0;
      if (p_.dtype == DType::kBf16) dx[i] = ToFloat(ToBf16(dx[i]));
      sums[i % static_cast<size_t>(p_.c)] += dx[i];
    }
  }

  // Of x [n, height, width, channels], 3x3, pad 1. A NaN is larger than everything.
  Floats MaxPool(const Floats& x, int64_t height, int64_t width, int64_t channels, int64_t stride,
                 uint8_t* argmax) const {
    const int64_t rows = (height - 1) / stride + 1, columns = (width - 1) / stride + 1;
    Floats pooled(static_cast<size_t>(p_.n * rows * columns * channels));
    ForEachPixel(p_.n, rows, columns, [&](int64_t n, int64_t h, int64_t w) {
      for (int64_t c = 0; c < channels; ++c) {
        std::optional<float> best;
        int64_t first = 0;
        for (int64_t position = 0; position < 9; ++position) {
          const int64_t row = h * stride - 1 + position / 3, column = w * stride - 1 + position % 3;
          if (row < 0 || row >= height || column < 0 || column >= width) continue;
          const float value = x[((n * height + row) * width + column) * channels + c];
          if (best.has_value() && !(value > *best) && !std::isnan(value)) continue;
          best = value;
          first = position;
        }
        const int64_t at = ((n * rows + h) * columns + w) * channels + c;
        pooled[at] = *best;
        if (argmax != nullptr) argmax[at] = static_cast<uint8_t>(first);
      }
    });
    return pooled;
  }

  int64_t PixelOfX(int64_t n, int64_t h, int64_t w) const { return ((n * p_.h + h) * p_.w + w) * p_.c; }
  int64_t PixelOfY(int64_t n, int64_t h, int64_t w) const {
    return ((n * p_.out_h() + h) * p_.out_w() + w) * p_.k;
  }
  int64_t Tap(int64_t k, int64_t h, int64_t w) const { return ((k * p_.kernel + h) * p_.kernel + w) * p_.c; }

  template <class Visit>
  static void ForEachPixel(int64_t n, int64_t h, int64_t w, const Visit& visit) {
    ParallelFor(n * h * w, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) visit(i / (h * w), i / w % h, i % w);
    });
  }

  Floats Forward(const Floats& x, const Floats& w, const void* bias) const {
    const Floats biases = p_.bias ? Load(bias, p_.bias_dtype(), p_.k) : Floats(static_cast<size_t>(p_.k));
    Floats y(static_cast<size_t>(PixelsOfY() * p_.k));
    ForEachPixel(p_.n, p_.out_h(), p_.out_w(), [&](int64_t n, int64_t oh, int64_t ow) {
      for (int64_t k = 0; k < p_.k; ++k) {
        double sum = biases[k];
        ForEachInput(oh, p_, p_.h, [&](int64_t ih, int64_t kh) {
          ForEachInput(ow, p_, p_.w, [&](int64_t iw, int64_t kw) {
            sum += Dot(&x[PixelOfX(n, ih, iw)], &w[Tap(k, kh, kw)], p_.c);
          });
        });
        // Not std::max: a NaN must stay.
        y[PixelOfY(n, oh, ow) + k] = p_.relu && sum < 0 ? 0.0f : static_cast<float>(sum);
      }
    });
    return y;
  }

  Floats BackwardData(const Floats& dy, const Floats& w) const {
    Floats dx(static_cast<size_t>(PixelsOfX() * p_.c));
    ForEachPixel(p_.n, p_.h, p_.w, [&](int64_t n, int64_t ih, int64_t iw) {
      ForEachOutput(ih, p_, p_.out_h(), [&](int64_t oh, int64_t kh) {
        ForEachOutput(iw, p_, p_.out_w(), [&](int64_t ow, int64_t kw) {
          for (int64_t k = 0; k < p_.k; ++k) {
            AddScaled(dy[PixelOfY(n, oh, ow) + k], &w[Tap(k, kh, kw)], p_.c, &dx[PixelOfX(n, ih, iw)]);
          }
        });
      });
    });
    return dx;
  }

  Floats BackwardWeights(const Floats& x, const Floats& dy, int64_t count) const {
    Floats dw(static_cast<size_t>(count));
    ForEachPixel(1, 1, p_.k, [&](int64_t, int64_t, int64_t k) {
      for (int64_t n = 0; n < p_.n; ++n) {
        for (int64_t oh = 0; oh < p_.out_h(); ++oh) {
          for (int64_t ow = 0; ow < p_.out_w(); ++ow) {
            ForEachInput(oh, p_, p_.h, [&](int64_t ih, int64_t kh) {
              ForEachInput(ow, p_, p_.w, [&](int64_t iw, int64_t kw) {
                AddScaled(dy[PixelOfY(n, oh, ow) + k], &x[PixelOfX(n, ih, iw)], p_.c, &dw[Tap(k, kh, kw)]);
              });
            });
          }
        }
      }
    });
    return dw;
  }

  const ConvolutionProblem p_;
};

class HostMatmul final : public CudaPlan {
 public:
  explicit HostMatmul(const MatmulProblem& problem) : p_(problem) {}

  void Run(const PlanOperands& o) override {
    const Floats rows = Rows(o.a, p_.m, p_.transpose_a, p_.a_stride),
                 columns = Rows(o.b, p_.n, !p_.transpose_b, p_.b_stride);
    const Floats biases = p_.bias ? Load(o.bias, p_.out, p_.n) : Floats(static_cast<size_t>(p_.n));
    ParallelFor(p_.m, 1, [&](int64_t begin, int64_t end) {
      Floats row(static_cast<size_t>(p_.n));
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t j = 0; j < p_.n; ++j) {
          row[j] = Dot(&rows[i * p_.k], &columns[j * p_.k], p_.k) + biases[j];
          if (p_.relu && row[j] < 0) row[j] = 0;
        }
        Store(row, p_.out,
              static_cast<std::byte*>(o.d) + static_cast<size_t>(i * p_.d_stride) * SizeOf(p_.out));
      }
    });
  }

 private:
  // [count, k] dense, of a matrix stored that way or, transposed, as [k, count].
  Floats Rows(const void* from, int64_t count, bool transposed, int64_t stride) const {
    Floats rows(static_cast<size_t>(count * p_.k));
    const int64_t stored_rows = transposed ? p_.k : count, stored_columns = transposed ? count : p_.k;
    for (int64_t i = 0; i < stored_rows; ++i) {
      const Floats row =
          Load(static_cast<const std::byte*>(from) + static_cast<size_t>(i * stride) * SizeOf(p_.in), p_.in,
               stored_columns);
      for (int64_t j = 0; j < stored_columns; ++j) rows[transposed ? j * p_.k + i : i * p_.k + j] = row[j];
    }
    return rows;
  }

  const MatmulProblem p_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CudaPlan>> MakeHostPlan(const ConvolutionProblem& problem) {
  if ((problem.pool_x || problem.pool_y) && problem.dtype != DType::kBf16) {  // as on GPUs
    return Named(absl::UnimplementedError("pools in bf16 only"), problem);
  }
  return std::make_unique<HostConvolution>(problem);
}

std::unique_ptr<CudaPlan> MakeHostPlan(const MatmulProblem& problem) {
  return std::make_unique<HostMatmul>(problem);
}

}  // namespace deeper::testing
