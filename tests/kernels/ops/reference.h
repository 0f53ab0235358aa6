// Naive references in double on canonical N,C,H,W, written directly from the definitions.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/ops/ops.h"
#include "tests/kernels/ops/test_values.h"

namespace deeper::testing {

struct NaiveTensor {
  Shape shape;
  Doubles values;

  double& at(int64_t n, int64_t c, int64_t h, int64_t w) {
    return values[static_cast<size_t>(((n * shape.c + c) * shape.h + h) * shape.w + w)];
  }
  double at(int64_t n, int64_t c, int64_t h, int64_t w) const {
    return const_cast<NaiveTensor*>(this)->at(n, c, h, w);
  }
};

inline NaiveTensor NaiveZeros(const Shape& shape) {
  return {shape, Doubles(static_cast<size_t>(shape.elements()))};
}

// Calls visit(index into x, index into weight, index into y) for every product a convolution sums.
template <class Visit>
void ForEachProduct(const Shape& x, const Conv2dParams& p, const Shape& y, const Visit& visit) {
  for (int64_t i = 0; i < y.n * y.c * x.c * p.kernel * p.kernel; ++i) {
    const int64_t kw = i % p.kernel, kh = i / p.kernel % p.kernel, c = i / (p.kernel * p.kernel) % x.c;
    const int64_t k = i / (p.kernel * p.kernel * x.c) % y.c, n = i / (p.kernel * p.kernel * x.c * y.c);
    const int64_t weight = ((k * x.c + c) * p.kernel + kh) * p.kernel + kw;
    for (int64_t oh = 0; oh < y.h; ++oh) {
      const int64_t h = oh * p.stride - p.pad + kh;
      if (h < 0 || h >= x.h) continue;
      for (int64_t ow = 0; ow < y.w; ++ow) {
        const int64_t w = ow * p.stride - p.pad + kw;
        if (w >= 0 && w < x.w)
          visit(((n * x.c + c) * x.h + h) * x.w + w, weight, ((n * y.c + k) * y.h + oh) * y.w + ow);
      }
    }
  }
}

// weight: [K, C, kernel, kernel]; bias: [K], or empty.
inline NaiveTensor NaiveConvolution(const NaiveTensor& x, const Conv2dParams& p, const Doubles& weight,
                                    const Doubles& bias) {
  NaiveTensor y = NaiveZeros({x.shape.n, p.out_channels, (x.shape.h + 2 * p.pad - p.kernel) / p.stride + 1,
                              (x.shape.w + 2 * p.pad - p.kernel) / p.stride + 1});
  const auto spatial = static_cast<size_t>(y.shape.spatial());
  for (size_t i = 0; !bias.empty() && i < y.values.size(); ++i) y.values[i] = bias[i / spatial % bias.size()];
  const double *from = x.values.data(), *with = weight.data();
  ForEachProduct(x.shape, p, y.shape, [=, to = y.values.data()](int64_t xi, int64_t wi, int64_t yi) {
    to[yi] += with[wi] * from[xi];
  });
  return y;
}

struct NaiveGradients {
  Doubles x, weight, bias;
};

inline NaiveGradients NaiveConvolutionBackward(const NaiveTensor& x, const Conv2dParams& p,
                                               const Doubles& weight, const NaiveTensor& dy) {
  NaiveGradients g{Doubles(x.values.size()), Doubles(weight.size()),
                   Doubles(static_cast<size_t>(dy.shape.c))};
  ForEachProduct(x.shape, p, dy.shape, [&](int64_t xi, int64_t wi, int64_t yi) {
    g.x[xi] += weight[wi] * dy.values[yi];
    g.weight[wi] += x.values[xi] * dy.values[yi];
  });
  const auto spatial = static_cast<size_t>(dy.shape.spatial());
  for (size_t i = 0; i < dy.values.size(); ++i) g.bias[i / spatial % g.bias.size()] += dy.values[i];
  return g;
}

// In place: y = (x - mean) / sqrt(variance + eps) * scale + shift, by channel, with the biased variance.
inline void NaiveNormalize(NaiveTensor& x, const Doubles& mean, const Doubles& variance, double eps,
                           const Doubles& scale, const Doubles& shift) {
  for (size_t i = 0; i < x.values.size(); ++i) {
    const size_t c = i / static_cast<size_t>(x.shape.spatial()) % static_cast<size_t>(x.shape.c);
    x.values[i] = (x.values[i] - mean[c]) / std::sqrt(variance[c] + eps) * scale[c] + shift[c];
  }
}

struct NaiveStatistics {
  Doubles mean, variance;  // biased
};

inline NaiveStatistics NaiveBatchStatistics(const NaiveTensor& x) {
  const auto channels = static_cast<size_t>(x.shape.c), spatial = static_cast<size_t>(x.shape.spatial());
  const auto count = static_cast<double>(x.values.size() / channels);
  NaiveStatistics s{Doubles(channels), Doubles(channels)};
  for (size_t i = 0; i < x.values.size(); ++i) s.mean[i / spatial % channels] += x.values[i] / count;
  for (size_t i = 0; i < x.values.size(); ++i) {
    const double d = x.values[i] - s.mean[i / spatial % channels];
    s.variance[i / spatial % channels] += d * d / count;
  }
  return s;
}

// Reads its parameters from params[next...], in the op's order.
inline NaiveTensor NaiveConv2d(const NaiveTensor& x, const Conv2dParams& p,
                               const std::vector<Doubles>& params, size_t& next, bool training) {
  const Doubles& weight = params[next++];
  NaiveTensor y;
  if (p.batch_norm) {
    y = NaiveConvolution(x, p, weight, {});
    const NaiveStatistics s =
        training ? NaiveBatchStatistics(y) : NaiveStatistics{params[next + 2], params[next + 3]};
    NaiveNormalize(y, s.mean, s.variance, p.norm.eps, params[next], params[next + 1]);
    next += 4;
  } else {
    y = NaiveConvolution(x, p, weight, params[next++]);
  }
  if (p.relu) {
    for (double& v : y.values) v = std::max(v, 0.0);
  }
  return y;
}

inline NaiveTensor NaiveMaxPool(const NaiveTensor& x, int64_t kernel, int64_t stride, int64_t pad) {
  const Shape& in = x.shape;
  NaiveTensor y = NaiveZeros(
      {in.n, in.c, (in.h + 2 * pad - kernel) / stride + 1, (in.w + 2 * pad - kernel) / stride + 1});
  std::fill(y.values.begin(), y.values.end(), -std::numeric_limits<double>::infinity());
  for (int64_t n = 0; n < in.n; ++n) {
    for (int64_t c = 0; c < in.c; ++c) {
      for (int64_t i = 0; i < y.shape.spatial() * kernel * kernel; ++i) {
        const int64_t oh = i / (kernel * kernel) / y.shape.w, ow = i / (kernel * kernel) % y.shape.w;
        const int64_t h = oh * stride - pad + i / kernel % kernel, w = ow * stride - pad + i % kernel;
        if (h >= 0 && h < in.h && w >= 0 && w < in.w)
          y.at(n, c, oh, ow) = std::max(y.at(n, c, oh, ow), x.at(n, c, h, w));
      }
    }
  }
  return y;
}

// The first maximum of a window in scan order receives its gradient.
inline Doubles NaiveMaxPoolBackward(const NaiveTensor& x, const NaiveTensor& y, const NaiveTensor& dy,
                                    int64_t kernel, int64_t stride, int64_t pad) {
  NaiveTensor dx = NaiveZeros(x.shape);
  for (int64_t i = 0; i < y.shape.elements(); ++i) {
    const int64_t ow = i % y.shape.w, oh = i / y.shape.w % y.shape.h, plane = i / y.shape.spatial();
    const int64_t n = plane / x.shape.c, c = plane % x.shape.c;
    for (int64_t t = 0; t < kernel * kernel; ++t) {
      const int64_t h = oh * stride - pad + t / kernel, w = ow * stride - pad + t % kernel;
      if (h < 0 || h >= x.shape.h || w < 0 || w >= x.shape.w || x.at(n, c, h, w) != y.values[i]) continue;
      dx.at(n, c, h, w) += dy.values[i];
      break;
    }
  }
  return dx.values;
}

// to[:, first : first + from.c] = from.
inline void NaivePaste(const NaiveTensor& from, int64_t first, NaiveTensor& to) {
  for (int64_t n = 0; n < from.shape.n; ++n) {
    for (int64_t i = 0; i < from.shape.c * from.shape.spatial(); ++i)
      to.at(n, first, 0, i) = from.at(n, 0, 0, i);
  }
}

// x[:, first : first + channels].
inline NaiveTensor NaiveCut(const NaiveTensor& x, int64_t first, int64_t channels) {
  NaiveTensor part = NaiveZeros({x.shape.n, channels, x.shape.h, x.shape.w});
  for (int64_t n = 0; n < x.shape.n; ++n) {
    for (int64_t i = 0; i < channels * x.shape.spatial(); ++i) part.at(n, 0, 0, i) = x.at(n, first, 0, i);
  }
  return part;
}

// The L2 norm of the difference, relative to that of the expected values. For bf16, where a ReLU near zero
// may switch.
inline void ExpectNormClose(const Values& actual, const Doubles& expected, double tolerance,
                            const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  double difference = 0, norm = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    difference += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  EXPECT_GT(norm, 0) << what;
  EXPECT_LE(std::sqrt(difference), tolerance * std::sqrt(norm)) << what;
}

}  // namespace deeper::testing
