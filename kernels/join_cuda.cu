#include <numeric>

#include "kernels/check.h"
#include "kernels/cuda_for_each.h"
#include "kernels/cuda_rows.h"
#include "kernels/join.h"

namespace deeper {
namespace {

// The parts' masked sum. The loops over the parts have a fixed end, so that they unroll and the pointers stay
// in registers.
template <class T, int N>
struct Joined {
  const T* parts[kMaxGradientParts];
  int count;
  const T* y;

  Joined(const std::vector<void*>& from, const void* mask)
      : parts{}, count(static_cast<int>(from.size())), y(static_cast<const T*>(mask)) {
    DEEPER_CHECK(!from.empty() && from.size() <= kMaxGradientParts, std::to_string(from.size()));
    std::transform(from.begin(), from.end(), parts, [](void* part) { return static_cast<const T*>(part); });
  }

  DEEPER_HD Pack<T, N> At(int64_t at) const {
    float sum[N];
    const Pack<T, N> first = LoadPack<T, N>(parts[0] + at);
    for (int j = 0; j < N; ++j) sum[j] = ToFloat(first.v[j]);
    for (int p = 1; p < static_cast<int>(kMaxGradientParts); ++p) {
      if (p >= count) continue;
      const Pack<T, N> part = LoadPack<T, N>(parts[p] + at);
      for (int j = 0; j < N; ++j) sum[j] += ToFloat(part.v[j]);
    }
    if (y != nullptr) {
      const Pack<T, N> mask = LoadPack<T, N>(y + at);
      for (int j = 0; j < N; ++j) sum[j] = ToFloat(mask.v[j]) > 0 ? sum[j] : 0.0f;
    }
    Pack<T, N> joined;
    for (int j = 0; j < N; ++j) joined.v[j] = FromFloat<T>(sum[j]);
    return joined;
  }
};

template <class T, int N>
struct Join {
  Joined<T, N> from;
  T* out;
  DEEPER_HD void operator()(int64_t i) const { StorePack(out + i * N, from.At(i * N)); }
};

template <class T, int N>
struct CutChannels {
  Joined<T, N> from;
  int64_t from_channels, first, out_channels;
  T* out;
  DEEPER_HD void operator()(int64_t i) const {
    const int64_t packs = out_channels / N, row = i / packs, channel = i % packs * N;
    StorePack(out + i * N, from.At(row * from_channels + first + channel));
  }
};

template <class T, int N>
struct PasteIntoChannels {
  const T* from;
  int64_t from_channels, first, to_channels;
  T* to;
  DEEPER_HD void operator()(int64_t i) const {
    const int64_t packs = from_channels / N, row = i / packs, channel = i % packs * N;
    StorePack(to + row * to_channels + first + channel, LoadPack<T, N>(from + i * N));
  }
};

struct Sum {
  static constexpr int kValues = 1;
  float v[kValues];
  DEEPER_HD void Merge(float, const Sum& next, float) { v[0] += next.v[0]; }
};

// The index counts tiles of rows, and in them packs of channels.
template <class T, int N>
struct JoinAndSum {
  Joined<T, N> from;
  T* out;  // nullptr: the only part is already what it should become
  TileSums<Sum> sums;
  DEEPER_HD void operator()(int64_t i) const {
    const int64_t packs = sums.channels / N, tile = i / packs, channel = i % packs * N;
    float sum[N] = {};
    for (int64_t row = sums.tiles.begin(tile), end = sums.tiles.begin(tile + 1); row < end; ++row) {
      const int64_t at = row * sums.channels + channel;
      const Pack<T, N> joined = from.At(at);
      if (out != nullptr) StorePack(out + at, joined);
      for (int j = 0; j < N; ++j) sum[j] += ToFloat(joined.v[j]);
    }
    for (int j = 0; j < N; ++j) sums.Store(tile, channel + j, {{sum[j]}});
  }
};

struct StoreSum {
  float* to;
  DEEPER_HD void operator()(int64_t channel, const Sum& sum) const { to[channel] = sum.v[0]; }
};

// What a join reads and writes for `count` elements of `out`.
int64_t JoinBytes(size_t tensors, int64_t count, DType dtype) {
  return static_cast<int64_t>(tensors * SizeOf(dtype)) * count;
}

}  // namespace

void JoinChannelsCuda(Device& device, const std::vector<void*>& parts, const void* y, const TensorDesc& from,
                      int64_t first_channel, const Tensor& out) {
  DEEPER_CHECK(IsRows(from) && IsRows(out.desc) && out.desc.dtype == from.dtype);
  const int64_t count = out.desc.stored_elements(), channels = out.desc.shape.c;
  const int64_t bytes = JoinBytes(parts.size() + (y != nullptr) + 1, count, from.dtype);
  const int64_t divisor = std::gcd(std::gcd(from.shape.c, channels), first_channel);
  WithPacks(from.dtype, divisor, [&](auto zero, auto width) {
    using T = decltype(zero);
    constexpr int N = width;
    ForEach(AsCuda(device), {"join channels", bytes}, count / N,
            CutChannels<T, N>{{parts, y}, from.shape.c, first_channel, channels, out.as<T>()});
  });
}

void PasteChannelsCuda(Device& device, const Tensor& from, int64_t first_channel, const Tensor& to) {
  DEEPER_CHECK(IsRows(from.desc) && IsRows(to.desc) && from.desc.dtype == to.desc.dtype);
  const int64_t count = from.desc.stored_elements(), channels = from.desc.shape.c, wide = to.desc.shape.c;
  const int64_t bytes = JoinBytes(2, count, from.desc.dtype);
  WithPacks(from.desc.dtype, std::gcd(std::gcd(channels, wide), first_channel), [&](auto zero, auto width) {
    using T = decltype(zero);
    constexpr int N = width;
    ForEach(AsCuda(device), {"paste channels", bytes}, count / N,
            PasteIntoChannels<T, N>{from.as<T>(), channels, first_channel, wide, to.as<T>()});
  });
}

void JoinGradientsCuda(Device& device, const std::vector<void*>& parts, const void* y, const TensorDesc& desc,
                       void* out, float* bias_gradient, void* workspace) {
  const bool done = parts.size() == 1 && parts[0] == out && y == nullptr;
  if (done && bias_gradient == nullptr) return;
  const int64_t count = desc.stored_elements(), channels = desc.shape.c;
  const int64_t bytes = JoinBytes(parts.size() + (y != nullptr) + !done, count, desc.dtype);
  if (bias_gradient == nullptr) {
    WithPacks(desc.dtype, count, [&](auto zero, auto width) {
      using T = decltype(zero);
      constexpr int N = width;
      ForEach(AsCuda(device), {"join gradients", bytes}, count / N,
              Join<T, N>{{parts, y}, static_cast<T*>(out)});
    });
    return;
  }
  const TileSums<Sum> sums = {TilesOf(desc), channels, static_cast<float*>(workspace)};
  WithPacks(desc.dtype, channels, [&](auto zero, auto width) {
    using T = decltype(zero);
    constexpr int N = width;
    ForEach(AsCuda(device), {"join gradients and bias", bytes}, sums.tiles.count() * (channels / N),
            JoinAndSum<T, N>{{parts, y}, done ? nullptr : static_cast<T*>(out), sums});
  });
  MergeTiles(AsCuda(device), "bias gradient", sums, StoreSum{bias_gradient});
}

size_t JoinWorkspaceBytes(const TensorDesc& desc) {
  return TileSums<Sum>::Bytes(desc);
}

}  // namespace deeper
