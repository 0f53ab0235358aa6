#include <algorithm>
#include <numeric>
#include <type_traits>

#include "kernels/base/check.h"
#include "kernels/cuda/base/cuda_for_each.h"
#include "kernels/ops/cuda_pool.h"
#include "kernels/ops/cuda_rows.h"
#include "kernels/ops/join.h"

namespace deeper {
namespace {

// The parts of a gradient that max pools hand over, as a type: none, one whose geometry is known at compile
// time, or several of any geometry.
struct NoPooled {
  template <int N>
  DEEPER_HD void AddTo(float (&)[N], const Place&, int) const {}
};

template <class T, int N>
struct AnyPooled {
  MaxPoolGradient<T, N> first, second;
  int count;
  DEEPER_HD void AddTo(float (&sum)[N], const Place& at, int channel) const {
    first.AddTo(sum, at, channel);
    if (count > 1) second.AddTo(sum, at, channel);
  }
};
static_assert(kMaxPooledParts == 2);

// Whether a mask from the output of a ReLU keeps a gradient. Masks with two elements per instruction for
// bf16.
template <class T, int N>
DEEPER_HD void Mask(Pack<T, N>& pack, const Pack<T, N>& y) {
  if constexpr (sizeof(T) == 2 && N % 2 == 0) {
    auto pairs = PairsOf(pack);
    const auto of_y = PairsOf(y);
    for (int j = 0; j < N / 2; ++j) pairs.v[j] &= IsLargerPair(of_y.v[j], 0);
    pack = PackOf<T, N>(pairs);
  } else {
    for (int j = 0; j < N; ++j) {
      if (!(ToFloat(y.v[j]) > 0)) pack.v[j] = T{};
    }
  }
}

constexpr int kAnyParts = -1;  // up to kMaxGradientParts

// The masked sum of kParts dense parts and the pooled ones. The loop over parts has a constant bound, so that
// it unrolls and the pointers stay in registers.
template <class T, int N, int kParts, class Pooled>
struct Joined {
  static constexpr int kMost = kParts == kAnyParts ? static_cast<int>(kMaxGradientParts) : kParts;
  int channels;  // of the parts
  const T* parts[kMost > 0 ? kMost : 1];
  int count;
  Pooled pooled;
  const T* y;  // nullptr: no mask
  int y_pitch;

  Joined(const GradientJoin& join, const Pooled& pooled_parts)
      : channels(static_cast<int>(join.desc.shape.c)),
        parts{},
        count(static_cast<int>(join.parts.size())),
        pooled(pooled_parts),
        y(static_cast<const T*>(join.y)),
        y_pitch(static_cast<int>(join.desc.pixel_pitch())) {
    if (y != nullptr) y += join.desc.first;
    for (int i = 0; i < count; ++i) parts[i] = static_cast<const T*>(join.parts[static_cast<size_t>(i)]);
  }

  // `place` is that of the pixel, if there are pooled parts.
  DEEPER_HD Pack<T, N> At(int pixel, const Place& place, int channel) const {
    constexpr int kBytes = sizeof(T);
    Pack<T, N> mask = {};
    if (y != nullptr) mask = LoadPack<T, N>(RowAt(y + channel, pixel, y_pitch * kBytes));
    float sum[N] = {};
    for (int p = 0; p < kMost; ++p) {
      if (kParts == kAnyParts && p >= count) continue;
      const auto part = Floats(LoadPack<T, N>(RowAt(parts[p] + channel, pixel, channels * kBytes)));
      for (int j = 0; j < N; ++j) sum[j] += part.v[j];
    }
    pooled.AddTo(sum, place, channel);
    Pack<T, N> joined = Rounded<T>(sum);
    if (y != nullptr) Mask(joined, mask);
    return joined;
  }
};

struct Sum {
  static constexpr int kValues = 1;
  float v[kValues];
  DEEPER_HD void Merge(float, const Sum& next, float) { v[0] += next.v[0]; }
};

// The index counts tiles of pixels and, within a tile, packs of channels.
template <class T, int N, int kParts, class Pooled>
struct Join {
  Divider packs;
  Grid pixels;
  Joined<T, N, kParts, Pooled> from;
  Targets<T, N> to;
  TileSums<Sum> sums;  // at = nullptr: not needed
  int64_t Iterations() const { return sums.tiles.size; }
  DEEPER_HD void operator()(int64_t i) const {
    const auto [tile, pack] = packs.Divide(static_cast<uint32_t>(i));
    const int channel = pack * N, size = static_cast<int>(sums.tiles.size);
    const int begin = tile * size, end = std::min(begin + size, static_cast<int>(sums.tiles.rows));
    const auto target = to.Of(channel);
    Place at = {};
    if constexpr (!std::is_same_v<Pooled, NoPooled>) at = pixels.At(static_cast<uint32_t>(begin));
    float sum[N] = {};
    DEEPER_NO_UNROLL
    for (int row = begin; row < end; ++row) {
      const Pack<T, N> joined = from.At(row, at, channel);
      target.Store(row, joined);
      const Pack<float, N> values = Floats(joined);
      for (int j = 0; j < N; ++j) sum[j] += values.v[j];
      pixels.Advance(at);
    }
    if (sums.at == nullptr) return;
    for (int j = 0; j < N; ++j) sums.Store(tile, channel + j, {{sum[j]}});
  }
};

// The same for an even number of rows and of columns and a 3x3 pool of stride 2. Tiles are of quads
// (AddToQuad).
template <class T, int N, int kParts>
struct JoinQuads {
  Divider packs;
  Grid quads;
  Joined<T, N, kParts, NoPooled> from;
  MaxPool3x3Gradient<T, N, 2> pooled;
  Targets<T, N> to;
  TileSums<Sum> sums;  // at = nullptr: not needed
  int64_t Iterations() const { return sums.tiles.size; }
  DEEPER_HD void operator()(int64_t i) const {
    const auto [tile, pack] = packs.Divide(static_cast<uint32_t>(i));
    const int channel = pack * N, size = static_cast<int>(sums.tiles.size);
    const int begin = tile * size, end = std::min(begin + size, static_cast<int>(sums.tiles.rows));
    const int width = 2 * static_cast<int>(quads.columns.divisor());
    constexpr int kBytes = sizeof(T);
    const auto target = to.Of(channel);
    Place at = quads.At(static_cast<uint32_t>(begin));
    float sum[N] = {};
    DEEPER_NO_UNROLL
    for (int quad = begin; quad < end; ++quad) {
      // Quads of a row precede those of the next, and each has two rows of pixels.
      const int pixel = 4 * quad - 2 * at.column;
      const int pixels[4] = {pixel, pixel + 1, pixel + width, pixel + width + 1};
      Pack<T, N> masks[4] = {};
      float joined[4][N] = {};
      for (int p = 0; p < 4; ++p) {
        if (from.y != nullptr)
          masks[p] = LoadPack<T, N>(RowAt(from.y + channel, pixels[p], from.y_pitch * kBytes));
      }
      for (int p = 0; p < 4; ++p) {
        for (int part = 0; part < kParts; ++part) {
          const auto more =
              Floats(LoadPack<T, N>(RowAt(from.parts[part] + channel, pixels[p], from.channels * kBytes)));
          for (int j = 0; j < N; ++j) joined[p][j] += more.v[j];
        }
      }
      pooled.AddToQuad(joined, at, channel);
      for (int p = 0; p < 4; ++p) {
        Pack<T, N> masked = Rounded<T>(joined[p]);
        if (from.y != nullptr) Mask(masked, masks[p]);
        target.Store(pixels[p], masked);
        const Pack<float, N> values = Floats(masked);
        for (int j = 0; j < N; ++j) sum[j] += values.v[j];
      }
      quads.Advance(at);
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
  Divider packs;
  Joined<T, N, kAnyParts, NoPooled> from;
  int first;
  T* out;
  DEEPER_HD void operator()(int64_t i) const {
    const auto [row, pack] = packs.Divide(static_cast<uint32_t>(i));
    StorePack(out + i * N, from.At(row, {}, first + pack * N));
  }
};

template <class T, int N>
struct PasteIntoChannels {
  Divider packs;
  const T* from;
  int to_channels;
  T* to;  // the first of the channels
  DEEPER_HD void operator()(int64_t i) const {
    const auto [row, pack] = packs.Divide(static_cast<uint32_t>(i));
    StorePack(to + int64_t{row} * to_channels + pack * N, LoadPack<T, N>(from + i * N));
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

// Calls make with the type of the pooled parts.
template <class T, int N, class Make>
void WithPooled(const GradientJoin& join, const Make& make) {
  if (join.pooled.empty()) return make(NoPooled());
  const auto gradient = [&join](size_t i) { return GradientOf<T, N>(join.pooled[i], join.desc.shape); };
  constexpr size_t kMostParts = 2;  // with a geometry that is known at compile time
  if (join.pooled.size() == 1 && join.parts.size() <= kMostParts) {
    return WithGradient(gradient(0), [&]<class Gradient>(const Gradient& only) {
      if constexpr (std::is_same_v<Gradient, MaxPoolGradient<T, N>>) {
        make(AnyPooled<T, N>{only, only, 1});
      } else {
        make(only);
      }
    });
  }
  make(AnyPooled<T, N>{gradient(0), gradient(join.pooled.size() - 1), static_cast<int>(join.pooled.size())});
}

template <class Pooled>
constexpr bool IsOfStride2 = false;
template <class T, int N>
constexpr bool IsOfStride2<MaxPool3x3Gradient<T, N, 2>> = true;

// As many quads as `tiles` has pixels, in no more tiles.
RowTiles QuadsOf(const RowTiles& tiles) {
  return {tiles.rows / 4, (tiles.size + 3) / 4};
}

void Run(CudaDevice& device, const GradientJoin& join) {
  RowTiles tiles = TilesOf(join.desc);
  if (join.sums == nullptr) tiles.size = 1;
  const int64_t channels = join.desc.shape.c;
  TileSums<Sum> sums = {tiles, channels,
                        join.sums == nullptr ? nullptr : static_cast<float*>(join.workspace)};
  const Launch launch = {join.pooled.empty() ? "join gradients" : "join and spread gradients", BytesOf(join)};
  const Grid pixels(join.desc.shape.h, join.desc.shape.w);
  WithPacks(join.desc.dtype, CommonDivisor(join), [&]<class T, int N>() {
    const int64_t count = tiles.count() * (channels / N);
    DEEPER_CHECK(std::max(count, tiles.rows) < kMostIndices, join.desc.shape.ToString());
    WithPooled<T, N>(join, [&]<class Pooled>(const Pooled& pooled) {
      const auto run = [&]<int kParts>() {
        if constexpr (IsOfStride2<Pooled> && kParts != kAnyParts) {
          if (join.desc.shape.h % 2 == 0 && join.desc.shape.w % 2 == 0) {
            sums.tiles = QuadsOf(tiles);
            const Grid quads(join.desc.shape.h / 2, join.desc.shape.w / 2);
            ForEach(device, launch, sums.tiles.count() * (channels / N),
                    JoinQuads<T, N, kParts>{Divider(channels / N), quads,
                                            Joined<T, N, kParts, NoPooled>(join, {}), pooled,
                                            Targets<T, N>(join.targets), sums});
            return;
          }
        }
        ForEach(device, launch, count,
                Join<T, N, kParts, Pooled>{Divider(channels / N), pixels,
                                           Joined<T, N, kParts, Pooled>(join, pooled),
                                           Targets<T, N>(join.targets), sums});
      };
      const size_t parts = join.parts.size();
      if constexpr (std::is_same_v<Pooled, AnyPooled<T, N>>) {
        run.template operator()<kAnyParts>();
      } else if constexpr (std::is_same_v<Pooled, NoPooled>) {
        parts == 1 ? run.template operator()<1>() : run.template operator()<kAnyParts>();
      } else {
        parts == 0   ? run.template operator()<0>()
        : parts == 1 ? run.template operator()<1>()
                     : run.template operator()<2>();
      }
    });
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
    DEEPER_CHECK(count / N < kMostIndices, from.shape.ToString());
    ForEach(
        AsCuda(device), {"join channels", bytes}, count / N,
        CutChannels<T, N>{Divider(channels / N), {join, {}}, static_cast<int>(first_channel), out.as<T>()});
  });
}

void PasteChannelsCuda(Device& device, const Tensor& from, int64_t first_channel, const Tensor& to) {
  DEEPER_CHECK(IsRows(from.desc) && IsRows(to.desc) && from.desc.dtype == to.desc.dtype);
  const int64_t count = from.desc.stored_elements(), channels = from.desc.shape.c, wide = to.desc.shape.c;
  const int64_t bytes = Bytes(2, count, from.desc.dtype);
  WithPacks(from.desc.dtype, std::gcd(std::gcd(channels, wide), first_channel), [&]<class T, int N>() {
    DEEPER_CHECK(count / N < kMostIndices, from.desc.shape.ToString());
    ForEach(AsCuda(device), {"paste channels", bytes}, count / N,
            PasteIntoChannels<T, N>{Divider(channels / N), from.as<T>(), static_cast<int>(wide),
                                    to.as<T>() + first_channel});
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
  Run(AsCuda(device), join);
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
