#include "kernels/ops/conv2d/batch_norm_cuda.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/cuda/base/cuda_for_each.h"
#include "kernels/ops/cuda_rows.h"

namespace deeper {
namespace {

// The mean, and the sum of squared distances to it. The merge formula of Chan, Golub and LeVeque 1979 avoids
// the cancellation of a difference of sums of squares.
struct Moments {
  static constexpr int kValues = 2;
  float v[kValues];
  DEEPER_HD void Merge(float own_rows, const Moments& next, float next_rows) {
    if (next_rows == 0) return;
    const float distance = next.v[0] - v[0], share = next_rows / (own_rows + next_rows);
    v[0] += distance * share;
    v[1] += next.v[1] + distance * distance * own_rows * share;
  }
};

// For the gradient g of the ReLU's input: the sum of g, and the sum of g times the normalised x.
struct GradientSums {
  static constexpr int kValues = 2;
  float v[kValues];
  DEEPER_HD void Merge(float, const GradientSums& next, float) {
    v[0] += next.v[0];
    v[1] += next.v[1];
  }
};

// The rows and channels that one index covers.
template <int N>
struct Part {
  int64_t tile, channel, begin, end;
  DEEPER_HD Part(const RowTiles& tiles, int64_t channels, int64_t i)
      : tile(i / (channels / N)),
        channel(i % (channels / N) * N),
        begin(tiles.begin(tile)),
        end(tiles.begin(tile + 1)) {}
};

// Welford's recurrence.
template <class T, int N>
struct MomentsOfTile {
  Pixels<T> x;
  TileSums<Moments> sums;
  DEEPER_HD void operator()(int64_t i) const {
    const Part<N> part(sums.tiles, sums.channels, i);
    float mean[N] = {}, squares[N] = {};
    for (int64_t row = part.begin; row < part.end; ++row) {
      const float share = 1 / static_cast<float>(row - part.begin + 1);
      const Pack<T, N> pack = LoadPack<T, N>(x.At(row, part.channel));
      for (int j = 0; j < N; ++j) {
        const float value = ToFloat(pack.v[j]), distance = value - mean[j];
        mean[j] += distance * share;
        squares[j] += distance * (value - mean[j]);
      }
    }
    for (int j = 0; j < N; ++j) sums.Store(part.tile, part.channel + j, {{mean[j], squares[j]}});
  }
};

struct FinishMoments {
  NormParams params;
  float rows;
  float* mean;
  float* inverse;
  float* running_mean;
  float* running_var;
  DEEPER_HD void operator()(int64_t channel, const Moments& moments) const {
    const float batch_mean = moments.v[0], variance = moments.v[1] / rows,
                unbiased = moments.v[1] / (rows - 1);
    mean[channel] = batch_mean;
    inverse[channel] = 1 / std::sqrt(variance + params.eps);
    running_mean[channel] += params.momentum * (batch_mean - running_mean[channel]);
    running_var[channel] += params.momentum * (unbiased - running_var[channel]);
  }
};

// This rank's share of the sums of x and of its squares. They are doubles, so that the difference of the two
// has no error that is visible in a float.
struct ShareMoments {
  RowTiles tiles;
  int64_t channels;
  double* sums;
  DEEPER_HD void operator()(int64_t channel, const Moments& moments) const {
    const auto rows = static_cast<double>(tiles.counted());
    const double mean = moments.v[0];
    sums[channel] = rows * mean;
    sums[channels + channel] = moments.v[1] + rows * mean * mean;
    if (channel == 0) sums[2 * channels] = rows;
  }
};

struct FinishSharedMoments {
  NormParams params;
  int64_t channels;
  const double* sums;
  float* mean;
  float* inverse;
  float* running_mean;
  float* running_var;
  DEEPER_HD void operator()(int64_t channel) const {
    const double rows = sums[2 * channels];
    double centre = running_mean[channel], variance = running_var[channel];
    if (rows > 0) {
      centre = sums[channel] / rows;
      variance = sums[channels + channel] / rows - centre * centre;
      if (variance < 0) variance = 0;
      const double unbiased = variance * rows / (rows > 1 ? rows - 1 : 1);
      running_mean[channel] += params.momentum * (static_cast<float>(centre) - running_mean[channel]);
      running_var[channel] += params.momentum * (static_cast<float>(unbiased) - running_var[channel]);
    }
    mean[channel] = static_cast<float>(centre);
    inverse[channel] = 1 / std::sqrt(static_cast<float>(variance) + params.eps);
  }
};

// Statistics and parameters of one channel.
struct Channel {
  float mean, inverse, scale, shift;

  DEEPER_HD float Normalized(float x) const { return (x - mean) * inverse; }
  DEEPER_HD float Output(float x) const { return Normalized(x) * scale + shift; }
};

template <class T, int N>
struct Normalize {
  Pixels<T> x, y;
  const float* mean;
  const float* spread;  // 1 / standard deviation, or the variance
  bool is_variance;
  float eps;
  const float* scale;
  const float* shift;
  bool relu;
  RowTiles tiles;

  DEEPER_HD Channel ChannelOf(int64_t c) const {
    return {mean[c], is_variance ? 1 / std::sqrt(spread[c] + eps) : spread[c], scale[c], shift[c]};
  }
  DEEPER_HD void operator()(int64_t i) const {
    const Part<N> part(tiles, x.channels, i);
    Channel channel[N];
    for (int j = 0; j < N; ++j) channel[j] = ChannelOf(part.channel + j);
    for (int64_t row = part.begin; row < part.end; ++row) {
      Pack<T, N> pack = LoadPack<T, N>(x.At(row, part.channel));
      for (int j = 0; j < N; ++j) {
        const float out = channel[j].Output(ToFloat(pack.v[j]));
        pack.v[j] = FromFloat<T>(relu && out < 0 ? 0.0f : out);  // keeps NaN
      }
      StorePack(y.At(row, part.channel), pack);
    }
  }
};

// The inputs of both passes of Backward.
template <class T, int N>
struct Gradients {
  Pixels<T> x, dy;
  const float* mean;
  const float* inverse;
  const float* scale;
  const float* shift;
  bool relu;

  DEEPER_HD Channel ChannelOf(int64_t c) const { return {mean[c], inverse[c], scale[c], shift[c]}; }
  // The gradient of the ReLU's input.
  DEEPER_HD float Masked(const Channel& channel, float x_value, float gradient) const {
    return relu && !(channel.Output(x_value) > 0) ? 0.0f : gradient;
  }
};

template <class T, int N>
struct GradientsOfTile {
  Gradients<T, N> in;
  TileSums<GradientSums> sums;
  DEEPER_HD void operator()(int64_t i) const {
    const Part<N> part(sums.tiles, sums.channels, i);
    Channel channel[N];
    for (int j = 0; j < N; ++j) channel[j] = in.ChannelOf(part.channel + j);
    float plain[N] = {}, weighted[N] = {};
    for (int64_t row = part.begin; row < part.end; ++row) {
      const auto x = LoadPack<T, N>(in.x.At(row, part.channel));
      const auto dy = LoadPack<T, N>(in.dy.At(row, part.channel));
      for (int j = 0; j < N; ++j) {
        const float value = ToFloat(x.v[j]), gradient = in.Masked(channel[j], value, ToFloat(dy.v[j]));
        plain[j] += gradient;
        weighted[j] += gradient * channel[j].Normalized(value);
      }
    }
    for (int j = 0; j < N; ++j) sums.Store(part.tile, part.channel + j, {{plain[j], weighted[j]}});
  }
};

struct StoreGradientSums {
  float* dshift;
  float* dscale;
  DEEPER_HD void operator()(int64_t channel, const GradientSums& sums) const {
    dshift[channel] = sums.v[0];
    dscale[channel] = sums.v[1];
  }
};

// This rank's sums, before the exchange.
struct ShareGradientSums {
  int64_t channels;
  const float* dshift;
  const float* dscale;
  double* sums;
  DEEPER_HD void operator()(int64_t channel) const {
    sums[channel] = dshift[channel];
    sums[channels + channel] = dscale[channel];
  }
};

// The means over the values of all ranks.
struct MeanGradients {
  int64_t channels;
  const double* sums;
  float* means;  // [2][channels]
  DEEPER_HD void operator()(int64_t i) const {
    const double rows = sums[2 * channels];
    means[i] = rows > 0 ? static_cast<float>(sums[i] / rows) : 0.0f;
  }
};

// dx = scale / deviation * (g - mean of g - normalised x * mean of g times normalised x). dx may be dy. The
// means do not depend on rows that do not count.
template <class T, int N>
struct InputGradient {
  Gradients<T, N> in;
  const float* dshift;
  const float* dscale;
  float rows;  // the means are dshift and dscale over this
  Targets<T, N> dx;
  RowTiles tiles;   // of all rows
  RowTiles counts;  // those that count
  DEEPER_HD void operator()(int64_t i) const {
    const Part<N> part(tiles, in.x.channels, i);
    const int64_t counted = counts.counted();
    Channel channel[N];
    float plain[N], weighted[N];
    for (int j = 0; j < N; ++j) {
      channel[j] = in.ChannelOf(part.channel + j);
      plain[j] = dshift[part.channel + j] / rows;
      weighted[j] = dscale[part.channel + j] / rows;
    }
    const auto to = dx.Of(static_cast<int>(part.channel));
    for (int64_t row = part.begin; row < part.end; ++row) {
      const auto x = LoadPack<T, N>(in.x.At(row, part.channel));
      const auto dy = LoadPack<T, N>(in.dy.At(row, part.channel));
      Pack<T, N> out;
      for (int j = 0; j < N; ++j) {
        const float value = ToFloat(x.v[j]), gradient = in.Masked(channel[j], value, ToFloat(dy.v[j]));
        const float centred = gradient - plain[j] - channel[j].Normalized(value) * weighted[j];
        out.v[j] = FromFloat<T>(channel[j].scale * channel[j].inverse * (row < counted ? centred : gradient));
      }
      to.Store(static_cast<int>(row), out);
    }
  }
};

void RunNormalize(CudaDevice& device, const BatchNormArguments& a, const float* mean, const float* spread,
                  bool is_variance, float eps) {
  const RowTiles tiles = TilesOf(a.x_desc);
  WithPacks(a.x_desc.dtype, std::gcd(PackDivisor(a.x_desc), PackDivisor(a.y_desc)), [&]<class T, int N>() {
    ForEach(device, {"batch norm", 2 * BytesOf(a.x_desc)}, tiles.count() * (a.x_desc.shape.c / N),
            Normalize<T, N>{Pixels<T>(a.x_desc, a.x), Pixels<T>(a.y_desc, a.y), mean, spread, is_variance,
                            eps, a.scale, a.shift, a.relu, tiles});
  });
}

}  // namespace

// The tiles of the rows that the statistics cover.
RowTiles CountedTiles(const BatchNormArguments& a) {
  RowTiles tiles = TilesOf(a.x_desc);
  if (a.ranks == nullptr) return tiles;
  tiles.step = a.ranks->step;
  tiles.pixels = a.x_desc.shape.spatial();
  return tiles;
}

size_t BatchNormWorkspaceBytes(const TensorDesc& desc) {
  const size_t means = 2 * static_cast<size_t>(desc.shape.c) * sizeof(float);
  return std::max({TileSums<Moments>::Bytes(desc), TileSums<GradientSums>::Bytes(desc), Align(means)});
}

void BatchNormForwardCuda(Device& device, const NormParams& params, const BatchNormArguments& a,
                          float* running_mean, float* running_var) {
  if (a.mean == nullptr) {
    return RunNormalize(AsCuda(device), a, running_mean, running_var, true, params.eps);
  }
  const int64_t channels = a.x_desc.shape.c;
  const TileSums<Moments> sums = {CountedTiles(a), channels, static_cast<float*>(a.workspace)};
  WithPacks(a.x_desc.dtype, PackDivisor(a.x_desc), [&]<class T, int N>() {
    ForEach(AsCuda(device), {"batch norm moments", BytesOf(a.x_desc)},
            sums.tiles.count() * (sums.channels / N), MomentsOfTile<T, N>{Pixels<T>(a.x_desc, a.x), sums});
  });
  if (a.ranks == nullptr) {
    MergeTiles(AsCuda(device), "batch norm statistics", sums,
               FinishMoments{params, static_cast<float>(sums.tiles.rows), a.mean, a.inverse, running_mean,
                             running_var});
  } else {
    double* const shared = a.ranks->sums;
    MergeTiles(AsCuda(device), "batch norm statistics", sums, ShareMoments{sums.tiles, channels, shared});
    a.ranks->sum(shared, static_cast<size_t>(RankSums(channels)));
    ForEach(AsCuda(device), {"batch norm statistics of all ranks", 32 * channels}, channels,
            FinishSharedMoments{params, channels, shared, a.mean, a.inverse, running_mean, running_var});
  }
  RunNormalize(AsCuda(device), a, a.mean, a.inverse, false, 0);
}

namespace {

// Returns the means of dshift and dscale over the values of all ranks, in the workspace.
float* ShareGradients(CudaDevice& device, const BatchNormArguments& a, const float* dscale,
                      const float* dshift) {
  const int64_t channels = a.x_desc.shape.c;
  double* const shared = a.ranks->sums;
  auto* const means = static_cast<float*>(a.workspace);
  ForEach(device, {"batch norm gradients of this rank", 24 * channels}, channels,
          ShareGradientSums{channels, dshift, dscale, shared});
  a.ranks->sum(shared, static_cast<size_t>(2 * channels));
  ForEach(device, {"batch norm gradients of all ranks", 24 * channels}, 2 * channels,
          MeanGradients{channels, shared, means});
  return means;
}

}  // namespace

void BatchNormBackwardCuda(Device& device, const BatchNormArguments& a, const Tensor& dy,
                           const std::vector<ChannelTarget>& dx, float* dscale, float* dshift) {
  const TensorDesc& desc = a.x_desc;
  const int64_t channels = desc.shape.c;
  const TileSums<GradientSums> sums = {CountedTiles(a), channels, static_cast<float*>(a.workspace)};
  const int64_t divisor = std::gcd(PackDivisor(desc), PackDivisor(dy.desc));
  WithPacks(desc.dtype, CommonDivisor(divisor, dx, desc.dtype), [&]<class T, int N>() {
    const int64_t count = sums.tiles.count() * (sums.channels / N);
    const Gradients<T, N> in = {
        Pixels<T>(desc, a.x), Pixels<T>(dy.desc, dy.data), a.mean, a.inverse, a.scale, a.shift, a.relu};
    ForEach(AsCuda(device), {"batch norm gradients", 2 * BytesOf(desc)}, count,
            GradientsOfTile<T, N>{in, sums});
    MergeTiles(AsCuda(device), "batch norm gradient sums", sums, StoreGradientSums{dshift, dscale});
    const float *mean_shift = dshift, *mean_scale = dscale;
    auto rows = static_cast<float>(sums.tiles.rows);
    if (a.ranks != nullptr) {
      float* const means = ShareGradients(AsCuda(device), a, dscale, dshift);
      mean_shift = means, mean_scale = means + channels, rows = 1;
    }
    ForEach(
        AsCuda(device), {"batch norm dx", 3 * BytesOf(desc)}, count,
        InputGradient<T, N>{in, mean_shift, mean_scale, rows, Targets<T, N>(dx), TilesOf(desc), sums.tiles});
  });
}

}  // namespace deeper
