#include "kernels/ops/conv2d/sync_batch_norm_cpu.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/base/bf16.h"
#include "kernels/base/parallel.h"
#include "kernels/cpu/channel_groups.h"

namespace deeper {
namespace {

// Some channels of one image: [pixels][count], with `pitch` elements from pixel to pixel.
template <class T>
DEEPER_SIMD void AddMoments(const T* x, int64_t pixels, int64_t pitch, int64_t count, double* sum,
                            double* squares) {
  for (int64_t p = 0; p < pixels; ++p) {
    for (int64_t j = 0; j < count; ++j) {
      const double value = ToFloat(x[p * pitch + j]);
      sum[j] += value;
      squares[j] += value * value;
    }
  }
}

template <class T>
DEEPER_SIMD void SubtractLine(const T* x, int64_t pixels, int64_t pitch, int64_t count, const float* constant,
                              const float* slope, const float* mean, T* dx) {
  for (int64_t p = 0; p < pixels; ++p) {
    for (int64_t j = 0; j < count; ++j) {
      const float line = constant[j] + slope[j] * (ToFloat(x[p * pitch + j]) - mean[j]);
      dx[p * pitch + j] = FromFloat<T>(ToFloat(dx[p * pitch + j]) - line);
    }
  }
}

}  // namespace

SyncBatchNormCpu::SyncBatchNormCpu(const TensorDesc& x, SumOverRanks sum) : x_(x), sum_(std::move(sum)) {
  const auto channels = static_cast<size_t>(x.padded_channels());
  sums_.resize(2 * channels + 1);
  constant_.resize(channels);
  slope_.resize(channels);
  mean_.resize(channels);
}

// The sums are doubles, which hold squares of floats exactly. The variance, a difference of two large sums,
// therefore has no error that is visible in a float.
int64_t SyncBatchNormCpu::Measure(const void* x, int64_t rows, float* mean, float* variance) {
  const ChannelGroups groups(x_);
  const int64_t channels = x_.padded_channels();
  std::fill(sums_.begin(), sums_.end(), 0.0);
  double* const sum = sums_.data();
  double* const squares = sum + channels;
  double& count = sums_.back();
  WithFloatType(x_.dtype, [&]<class T>() {
    const auto* values = static_cast<const T*>(x);
    ParallelFor(groups.count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t g = begin; g < end; ++g) {
        const int64_t c = g * groups.size;
        for (int64_t n = 0; n < rows; ++n)
          AddMoments(values + x_.Offset(n, c, 0, 0), x_.shape.spatial(), groups.pitch, groups.SizeOf(g),
                     sum + c, squares + c);
      }
    });
  });
  count = static_cast<double>(rows * x_.shape.spatial());
  sum_(sums_.data(), sums_.size());
  count_ = static_cast<int64_t>(count);
  for (int64_t c = 0; c < x_.shape.c && count_ > 0; ++c) {
    const double centre = sum[c] / count;
    mean[c] = static_cast<float>(centre);
    variance[c] = static_cast<float>(std::max(0.0, squares[c] / count - centre * centre));
  }
  return count_;
}

// With g, the gradient of the normalised x: dx = scale / deviation * (g - mean of g - normalised x * mean of
// g times normalised x). dx already holds the first term. dshift is the sum of g, dscale the sum of g times
// normalised x; the means are over all ranks.
void SyncBatchNormCpu::Complete(const Gradient& gradient) {
  const auto channels = static_cast<size_t>(x_.shape.c);
  for (size_t c = 0; c < channels; ++c) {
    sums_[c] = gradient.dshift[c];
    sums_[channels + c] = gradient.dscale[c];
  }
  sum_(sums_.data(), 2 * channels);
  if (count_ == 0) return;
  for (size_t c = 0; c < channels; ++c) {
    const double inverse = 1 / std::sqrt(double{gradient.variance[c]} + gradient.eps);
    const double factor = gradient.scale[c] * inverse / static_cast<double>(count_);
    constant_[c] = static_cast<float>(factor * sums_[c]);
    slope_[c] = static_cast<float>(factor * inverse * sums_[channels + c]);
    mean_[c] = gradient.mean[c];
  }
  WithFloatType(x_.dtype, [&]<class T>() {
    const auto* x = static_cast<const T*>(gradient.x);
    auto* dx = static_cast<T*>(gradient.dx);
    const ChannelGroups groups(x_);
    ParallelFor(gradient.rows * groups.count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t g = i % groups.count, at = x_.Offset(i / groups.count, g * groups.size, 0, 0);
        const auto first = static_cast<size_t>(g * groups.size);
        SubtractLine(x + at, x_.shape.spatial(), groups.pitch, groups.SizeOf(g), &constant_[first],
                     &slope_[first], &mean_[first], dx + at);
      }
    });
  });
}

}  // namespace deeper
