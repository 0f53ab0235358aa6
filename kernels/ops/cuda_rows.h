// Feature maps (kNhwc) and vectors as matrices [rows][channels], with reductions over rows per channel. For
// .cu files only.
//
// A reduction takes two or three launches. In the first, which the op defines, a thread processes the rows of
// one tile and a pack of channels and stores partial sums. MergeTiles then merges the tiles of each channel
// in order, in groups if there are many. The partition of rows depends only on the shape, so the same input
// gives the same bits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/op.h"
#include "kernels/base/tensor.h"
#include "kernels/cuda/base/cuda_for_each.h"
#include "kernels/ops/join.h"

namespace deeper {

// A feature map, possibly a slice of channels.
template <class T>
struct Pixels {
  T* data;
  int64_t pitch, channels;

  Pixels(const TensorDesc& desc, void* from)
      : data(static_cast<T*>(from) + desc.first), pitch(desc.pixel_pitch()), channels(desc.shape.c) {}
  DEEPER_HD T* At(int64_t pixel, int64_t channel) const { return data + pixel * pitch + channel; }
};

// The size of a pack must divide this number of elements.
inline int64_t PackDivisor(const TensorDesc& desc) {
  return std::gcd(std::gcd(desc.shape.c, desc.pixel_pitch()), desc.first);
}

// The bytes of the tensor's own elements only.
inline int64_t BytesOf(const TensorDesc& desc) {
  return desc.shape.elements() * static_cast<int64_t>(SizeOf(desc.dtype));
}

struct RowTiles {
  int64_t rows = 0;  // in total
  int64_t size = 1;  // rows per tile; the last may have fewer
  // In device memory: only the rows of its StepContext::rows images count, of `pixels` rows each. nullptr:
  // all.
  const StepContext* step = nullptr;
  int64_t pixels = 0;

  DEEPER_HD int64_t count() const { return (rows + size - 1) / size; }
  DEEPER_HD int64_t counted() const { return step == nullptr ? rows : std::min(rows, step->rows * pixels); }
  // Number of the tile's first row. A tile ends where the next one starts; it may have none that count.
  DEEPER_HD int64_t begin(int64_t tile) const { return std::min(tile * size, counted()); }
};

inline bool IsRows(const TensorDesc& desc) {
  return desc.layout == Layout::kNhwc || (desc.layout == Layout::kNchw && desc.shape.spatial() == 1);
}

// Chooses few enough tiles that their partial sums are cheap, and enough tiles to occupy a GPU.
inline RowTiles TilesOf(const TensorDesc& desc) {
  DEEPER_CHECK(IsRows(desc), desc.shape.ToString());
  constexpr int64_t kFewestRows = 4, kMostSums = int64_t{1} << 20;
  return {desc.shape.n * desc.shape.spatial(),
          std::max(kFewestRows, (desc.shape.elements() + kMostSums - 1) / kMostSums)};
}

// The partial sums of a tensor's tiles, [tile][value][channel]. Sums is an aggregate of floats v[kValues]
// with a method Merge(float own_rows, const Sums& next, float next_rows).
template <class Sums>
struct TileSums {
  static size_t Bytes(const TensorDesc& desc) {
    const size_t values = static_cast<size_t>(TilesOf(desc).count() * Sums::kValues * desc.shape.c);
    return Align(values * sizeof(float));
  }

  RowTiles tiles;
  int64_t channels = 0;
  float* at = nullptr;

  DEEPER_HD void Store(int64_t tile, int64_t channel, const Sums& sums) const {
    float* const to = at + tile * Sums::kValues * channels + channel;
    for (int i = 0; i < Sums::kValues; ++i) to[i * channels] = sums.v[i];
  }
  DEEPER_HD Sums Load(int64_t tile, int64_t channel) const {
    const float* const from = at + tile * Sums::kValues * channels + channel;
    Sums sums;
    for (int i = 0; i < Sums::kValues; ++i) sums.v[i] = from[i * channels];
    return sums;
  }
  // Merges `count` neighbouring groups of `step` tiles, one after the other. The sums of a group replace
  // those of its first tile. Loads a batch of groups at once.
  static constexpr int kBatch = 32 / Sums::kValues;
  static int64_t Batches(int64_t count) { return (count - 1 + kBatch - 1) / kBatch; }
  DEEPER_HD Sums Merged(int64_t channel, int64_t first, int64_t step, int64_t count) const {
    RowTiles known = tiles;  // reads the number of rows once
    known.rows = tiles.counted();
    known.step = nullptr;
    Sums sums = Load(first, channel);
    DEEPER_NO_UNROLL
    for (int64_t done = 1; done < count; done += kBatch) {
      const int left = static_cast<int>(count - done);
      Sums batch[kBatch] = {};
      DEEPER_UNROLL
      for (int i = 0; i < kBatch; ++i) {
        if (i < left) batch[i] = Load(first + (done + i) * step, channel);
      }
      DEEPER_UNROLL
      for (int i = 0; i < kBatch; ++i) {
        if (i >= left) continue;
        const int64_t tile = first + (done + i) * step, begin = known.begin(tile);
        sums.Merge(static_cast<float>(begin - known.begin(first)), batch[i],
                   static_cast<float>(known.begin(tile + step) - begin));
      }
    }
    return sums;
  }
};

// The destinations of the channels of a pixel.
template <class T, int N>
struct Targets {
  T* data[kMaxChannelTargets];  // nullptr: do not write
  int row_bytes[kMaxChannelTargets];
  int end[kMaxChannelTargets];  // end of each target's channels

  explicit Targets(const std::vector<ChannelTarget>& targets) : data{}, row_bytes{}, end{} {
    int64_t channel = 0;
    for (size_t i = 0; i < kMaxChannelTargets; ++i) {
      if (i < targets.size()) {
        data[i] = static_cast<T*>(targets[i].data);
        if (data[i] != nullptr) data[i] -= channel;
        row_bytes[i] = static_cast<int>(targets[i].pitch * int64_t{sizeof(T)});
        channel += targets[i].channels;
      }
      end[i] = static_cast<int>(channel);
    }
  }

  // The destination of a channel in all pixels.
  struct Target {
    T* data;  // nullptr: do not write
    int row_bytes;
    DEEPER_HD void Store(int pixel, const Pack<T, N>& pack) const {
      if (data != nullptr) StorePack(RowAt(data, pixel, row_bytes), pack);
    }
  };
  DEEPER_HD Target Of(int channel) const {
    Target to = {data[0], row_bytes[0]};
    for (size_t i = 1; i < kMaxChannelTargets; ++i) {
      if (channel >= end[i - 1] && channel < end[i]) to = {data[i], row_bytes[i]};
    }
    if (to.data != nullptr) to.data = Computed(to.data + channel);
    return to;
  }
};

// The size of a pack for all destinations must divide this number, which divides `divisor`.
inline int64_t CommonDivisor(int64_t divisor, const std::vector<ChannelTarget>& targets, DType dtype) {
  for (const ChannelTarget& target : targets) {
    const auto address = static_cast<int64_t>(reinterpret_cast<uintptr_t>(target.data) / SizeOf(dtype));
    divisor = std::gcd(std::gcd(divisor, target.channels), std::gcd(target.pitch, address));
  }
  return divisor;
}

template <class Sums>
struct MergeGroup {
  TileSums<Sums> sums;
  int64_t group;
  int64_t Iterations() const { return sums.Batches(group); }
  DEEPER_HD void operator()(int64_t i) const {
    const int64_t first = i / sums.channels * group, channel = i % sums.channels;
    sums.Store(first, channel, sums.Merged(channel, first, 1, std::min(group, sums.tiles.count() - first)));
  }
};

template <class Sums, class Finish>
struct MergeAll {
  TileSums<Sums> sums;
  int64_t group, groups;
  Finish finish;
  int64_t Iterations() const { return sums.Batches(groups); }
  DEEPER_HD void operator()(int64_t channel) const {
    finish(channel, sums.Merged(channel, 0, group, groups));
  }
};

// Calls finish(channel, sums over all rows) for each channel. Overwrites the partial sums.
template <class Sums, class Finish>
void MergeTiles(CudaDevice& device, const char* name, const TileSums<Sums>& sums, const Finish& finish) {
  constexpr int64_t kFew = 64;
  const int64_t tiles = sums.tiles.count(), bytes = Sums::kValues * sums.channels * int64_t{sizeof(float)};
  int64_t group = 1;
  while (tiles > kFew && group * group < tiles) group *= 2;
  const int64_t groups = (tiles + group - 1) / group;
  if (group > 1) {
    ForEach(device, {name, (tiles + groups) * bytes}, groups * sums.channels, MergeGroup<Sums>{sums, group});
  }
  ForEach(device, {name, groups * bytes}, sums.channels, MergeAll<Sums, Finish>{sums, group, groups, finish});
}

}  // namespace deeper
