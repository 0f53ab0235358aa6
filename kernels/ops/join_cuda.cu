#include <numeric>

#include "kernels/base/check.h"
#include "kernels/cuda/base/cuda_for_each.h"
#include "kernels/ops/cuda_pool.h"
#include "kernels/ops/cuda_rows.h"
#include "kernels/ops/join.h"

namespace deeper {
namespace {

// The masked sum of all parts. The loops over parts have a constant bound, so that they unroll and the
// pointers stay in registers.
template <class T, int N, bool kPooled>
struct Joined {
  int64_t channels;  // of the parts
  const T* parts[kMaxGradientParts];
  int count;
  MaxPoolGradient<T, N> pooled[kPooled ? kMaxPooledParts : 1];
  int pooled_count;
  int64_t height, width;
  const T* y;  // nullptr: no mask
  int64_t y_pitch;

  explicit Joined(const GradientJoin& join)
      : channels(join.desc.shape.c),
        parts{},
        count(static_cast<int>(join.parts.size())),
        pooled{},
        pooled_count(static_cast<int>(join.pooled.size())),
        height(join.desc.shape.h),
        width(join.desc.shape.w),
        y(static_cast<const T*>(join.y)),
        y_pitch(join.desc.pixel_pitch()) {
    if (y != nullptr) y += join.desc.first;
    for (int i = 0; i < count; ++i) parts[i] = static_cast<const T*>(join.parts[i]);
    for (int i = 0; i < pooled_count; ++i) pooled[i] = GradientOf<T, N>(join.pooled[i], join.desc.shape);
  }

  DEEPER_HD Pack<T, N> At(int64_t pixel, int64_t channel) const {
    float sum[N] = {};
    for (int p = 0; p < static_cast<int>(kMaxGradientParts); ++p) {
      if (p >= count) continue;
      const Pack<T, N> part = LoadPack<T, N>(parts[p] + pixel * channels + channel);
      for (int j = 0; j < N; ++j) sum[j] += ToFloat(part.v[j]);
    }
    if constexpr (kPooled) {
      const Place place = PlaceOf(pixel, height, width);
      for (int p = 0; p < static_cast<int>(kMaxPooledParts); ++p) {
        if (p < pooled_count) pooled[p].AddTo(sum, place, channel);
      }
    }
    if (y != nullptr) {
      const Pack<T, N> mask = LoadPack<T, N>(y + pixel * y_pitch + channel);
      for (int j = 0; j < N; ++j) sum[j] = ToFloat(mask.v[j]) > 0 ? sum[j] : 0.0f;
    }
    return Rounded<T>(sum);
  }
};

struct Sum {
  static constexpr int kValues = 1;
  float v[kValues];
  DEEPER_HD void Merge(float, const Sum& next, float) { v[0] += next.v[0]; }
};

// The index counts tiles of pixels and, within a tile, packs of channels.
template <class T, int N, bool kPooled>
struct Join {
  Joined<T, N, kPooled> from;
  Targets<T, N> to;
  TileSums<Sum> sums;  // at = nullptr: not needed
  DEEPER_HD void operator()(int64_t i) const {
    const int64_t packs = from.channels / N, tile = i / packs, channel = i % packs * N;
    float sum[N] = {};
    for (int64_t row = sums.tiles.begin(tile), end = sums.tiles.begin(tile + 1); row < end; ++row) {
      const Pack<T, N> joined = from.At(row, channel);
      to.Store(row, channel, joined);
      for (int j = 0; j < N; ++j) sum[j] += ToFloat(joined.v[j]);
    }
    if (sums.at == nullptr) return;
    for (int j = 0; j < N; ++j) sums.Store(tile, channel + j, {{sum[j]}});
  }
};

struct StoreSum {
  float* to;
  DEEPER_HD void operator()(int64_t channel, const Sum& sum) const { to[channel] = sum.v[0]; }
};

template <class T, int N>
struct CutChannels {
  Joined<T, N, false> from;
  int64_t first, out_channels;
  T* out;
  DEEPER_HD void operator()(int64_t i) const {
    const int64_t packs = out_channels / N, row = i / packs, channel = i % packs * N;
    StorePack(out + i * N, from.At(row, first + channel));
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

// The bytes of `tensors` tensors of `count` elements.
int64_t Bytes(size_t tensors, int64_t count, DType dtype) {
  return static_cast<int64_t>(tensors * SizeOf(dtype)) * count;
}

int64_t BytesOf(const GradientJoin& join) {
  const Shape& shape = join.desc.shape;
  int64_t bytes = Bytes(join.parts.size() + (join.y != nullptr), shape.elements(), join.desc.dtype);
  for (const PooledGradient& pooled : join.pooled) {
    const int64_t windows = pooled.part.desc.shape.elements();
    bytes += Bytes(1, windows, join.desc.dtype) + windows;
  }
  for (const ChannelTarget& target : join.targets) {
    if (target.data != nullptr)
      bytes += Bytes(1, shape.n * shape.spatial() * target.channels, join.desc.dtype);
  }
  return bytes;
}

// The size of a pack must divide this number of elements, at all addresses.
int64_t CommonDivisor(const GradientJoin& join) {
  const int64_t divisor = join.y != nullptr ? PackDivisor(join.desc) : join.desc.shape.c;
  return CommonDivisor(divisor, join.targets, join.desc.dtype);
}

template <bool kPooled>
void Run(CudaDevice& device, const GradientJoin& join) {
  RowTiles tiles = TilesOf(join.desc);
  if (join.sums == nullptr) tiles.size = 1;
  const int64_t channels = join.desc.shape.c;
  const TileSums<Sum> sums = {tiles, channels,
                              join.sums == nullptr ? nullptr : static_cast<float*>(join.workspace)};
  WithPacks(join.desc.dtype, CommonDivisor(join), [&]<class T, int N>() {
    ForEach(device, {kPooled ? "join and spread gradients" : "join gradients", BytesOf(join)},
            tiles.count() * (channels / N),
            Join<T, N, kPooled>{Joined<T, N, kPooled>(join), Targets<T, N>(join.targets), sums});
  });
  if (join.sums != nullptr) MergeTiles(device, "bias gradient", sums, StoreSum{join.sums});
}

}  // namespace

void JoinChannelsCuda(Device& device, const std::vector<void*>& parts, const void* y, const TensorDesc& from,
                      int64_t first_channel, const Tensor& out) {
  DEEPER_CHECK(IsRows(from) && IsRows(out.desc) && out.desc.dtype == from.dtype);
  const int64_t count = out.desc.stored_elements(), channels = out.desc.shape.c;
  const int64_t bytes = Bytes(parts.size() + (y != nullptr) + 1, count, from.dtype);
  const int64_t divisor = std::gcd(std::gcd(from.shape.c, channels), first_channel);
  GradientJoin join;
  join.desc = from;
  join.parts = parts;
  join.y = y;
  WithPacks(from.dtype, divisor, [&]<class T, int N>() {
    ForEach(AsCuda(device), {"join channels", bytes}, count / N,
            CutChannels<T, N>{Joined<T, N, false>(join), first_channel, channels, out.as<T>()});
  });
}

void PasteChannelsCuda(Device& device, const Tensor& from, int64_t first_channel, const Tensor& to) {
  DEEPER_CHECK(IsRows(from.desc) && IsRows(to.desc) && from.desc.dtype == to.desc.dtype);
  const int64_t count = from.desc.stored_elements(), channels = from.desc.shape.c, wide = to.desc.shape.c;
  const int64_t bytes = Bytes(2, count, from.desc.dtype);
  WithPacks(from.desc.dtype, std::gcd(std::gcd(channels, wide), first_channel), [&]<class T, int N>() {
    ForEach(AsCuda(device), {"paste channels", bytes}, count / N,
            PasteIntoChannels<T, N>{from.as<T>(), channels, first_channel, wide, to.as<T>()});
  });
}

void JoinGradientsCuda(Device& device, GradientJoin join) {
  DEEPER_CHECK(IsRows(join.desc), join.desc.shape.ToString());
  DEEPER_CHECK(!join.parts.empty() || !join.pooled.empty());
  DEEPER_CHECK(join.parts.size() <= kMaxGradientParts && join.pooled.size() <= kMaxPooledParts &&
               join.targets.size() <= kMaxChannelTargets);
  if (join.parts.size() == 1 && join.pooled.empty() && join.y == nullptr && join.targets.size() == 1 &&
      join.targets[0].data == join.parts[0]) {
    if (join.sums == nullptr) return;
    join.targets[0].data = nullptr;
  }
  if (join.pooled.empty()) {
    Run<false>(AsCuda(device), join);
  } else {
    Run<true>(AsCuda(device), join);
  }
}

void JoinGradientsCuda(Device& device, const std::vector<void*>& parts, const void* y, const TensorDesc& desc,
                       void* out, float* sums, void* workspace) {
  JoinGradientsCuda(device, {.desc = desc,
                             .parts = parts,
                             .pooled = {},
                             .y = y,
                             .targets = {{desc.shape.c, out, desc.shape.c}},
                             .sums = sums,
                             .workspace = workspace});
}

size_t JoinWorkspaceBytes(const TensorDesc& desc) {
  return TileSums<Sum>::Bytes(desc);
}

}  // namespace deeper
