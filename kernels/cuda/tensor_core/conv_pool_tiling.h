// Fused 3x3 max pooling of stride 1 (sm_80). A 1x1 convolution, forward or for the gradient of its weights,
// reads the maximum of each pixel's neighbours instead of the pixel. The pooled tensor is never written. More
// of the index math: conv_tiling.h.
#pragma once

#include <cstdint>

#include "kernels/base/bf16.h"
#include "kernels/base/host_device.h"
#include "kernels/cuda/base/codegen.h"
#include "kernels/cuda/base/max_window.h"
#include "kernels/cuda/tensor_core/conv_tiling.h"

namespace deeper::conv {

// ---- Forward ------------------------------------------------------------------------------------------

// From pixel to pixel of the input.
DEEPER_HD inline int PixelBytes(const Gemm& g) {
  return Computed(static_cast<int>(g.in_pitch) * static_cast<int>(sizeof(bf16)));
}

// The maxima of 8 channels of a source pixel, which must exist.
DEEPER_HD inline Maxima PoolChunk(const Gemm& g, const bf16* in, Source at, int channel) {
  // Otherwise nvcc would keep the neighbours' indices of all chunks, and the registers would not suffice.
  at = {Computed(at.row), Computed(at.column), at.index, Computed(at.pixel)};
  const int pixel_bytes = PixelBytes(g);
  const bf16* const from = Computed(in + channel);
  return MaximaOf(CentreAt(at.pixel, at.row, at.column, g.height, g.width),
                  [&](int pixel) { return RowAt(from, pixel, pixel_bytes); });
}

// Replaces CopyPixels: calls store(offset in shared memory, chunk). Writes positions to [pixel][channel] if
// requested.
template <class Store>
DEEPER_HD void PoolPixels(const Gemm& g, const Source (&sources)[kPixelCopies], const bf16* in,
                          const Step& step, int thread, uint8_t* positions, const Store& store) {
  const int channel = CopyElement(thread), from = step.depth + channel;
  DEEPER_UNROLL
  for (int i = 0; i < kPixelCopies; ++i) {
    Maxima maxima = {};
    if (sources[i].row >= 0 && from < g.depth) {
      maxima = PoolChunk(g, in, sources[i], from);
      if (positions != nullptr)
        *reinterpret_cast<Positions*>(RowAt(positions + from, sources[i].pixel, g.depth)) = maxima.positions;
    }
    store(RowOffset(CopyRow(thread, i), channel), maxima.values);
  }
}

// ---- Gradient of the weights --------------------------------------------------------------------------
//   dw[k, c] = sum over p of  dy[p, k] maxpool(x)[p, c]    rows K, columns C, depth pixels
// The Gemm is that of the forward convolution. x is its input, and dy has the layout of its output. K is its
// number of columns, C its depth.
//
// A tile is 64 or 128 filters by 64 channels. Its pixels, in steps of 64, are split over several blocks, and
// each block writes separate sums. The stage of a step holds dy in boxes of [64 pixels][64 filters], then the
// maxima, [64 pixels][64 channels], in rows as in conv_tiling.h. Neither has a contiguous depth, so ldmatrix
// transposes both.

constexpr int kStepPixels = 64;
constexpr int kTileChannels = 64;
// The maximum number of blocks per launch, unless there are more tiles: two per SM of the largest GPUs.
constexpr int kGradientBlocks = 2 * 132;
constexpr int kPooledCopies = kStepPixels / kCopyRows;  // per thread and step

constexpr int GradientStageBytes(int tile_filters) {
  return (tile_filters + kTileChannels) / kBoxRows * kBoxBytes;
}

struct GradientTiles {
  int of_filters, of_channels;
  int steps;   // per split; the last may have fewer
  int splits;  // of the pixels
  DEEPER_HD int count() const { return of_filters * of_channels; }
};
// Depends only on the shape, since it determines the order of sums.
DEEPER_HD inline GradientTiles GradientTilesOf(const Gemm& g, int tile_filters) {
  GradientTiles tiles = {CeilDiv(g.columns, tile_filters), CeilDiv(g.depth, kTileChannels), 0, 0};
  const int steps = CeilDiv(g.pixels(), kStepPixels);
  const int most_splits = tiles.count() < kGradientBlocks ? kGradientBlocks / tiles.count() : 1;
  tiles.steps = CeilDiv(steps, most_splits);
  tiles.splits = CeilDiv(steps, tiles.steps);
  return tiles;
}

struct GradientTile {
  int split, filter, channel;  // the split's number, its first filter and channel
  int first_pixel, steps;
};
// Blocks that read the same pixels are consecutive.
DEEPER_HD inline GradientTile GradientTileOf(const Gemm& g, int tile_filters, int block) {
  const GradientTiles tiles = GradientTilesOf(g, tile_filters);
  const int split = block / tiles.count(), tile = block % tiles.count();
  const int left = CeilDiv(g.pixels(), kStepPixels) - split * tiles.steps;
  return {split, tile / tiles.of_channels * tile_filters, tile % tiles.of_channels * kTileChannels,
          split * tiles.steps * kStepPixels, left < tiles.steps ? left : tiles.steps};
}

// The index of partial sums, [split][filter][channel].
DEEPER_HD inline int64_t PartialIndex(const Gemm& g, int split, int filter, int channel) {
  return (int64_t{split} * g.columns + filter) * g.depth + channel;
}

DEEPER_HD inline int64_t PartialSums(const Gemm& g, int tile_filters) {
  return PartialIndex(g, GradientTilesOf(g, tile_filters).splits, 0, 0);
}

// The maximum of each pair of numbers. A NaN is larger than every number.
DEEPER_HD inline void TakeLarger(Octet& largest, const Octet& other) {
  for (int j = 0; j < kChunk / 2; ++j) largest.pairs[j] = LargerPair(largest.pairs[j], other.pairs[j]);
}

// The maximum over the neighbours of pixel `index`. The nearest inside pixel, also a neighbour, replaces one
// outside.
DEEPER_HD inline Octet MaxChunk(const Gemm& g, const bf16* in, int index, int channel) {
  const Pixel at = PixelAt(g, index);
  const int up = at.row > 0 ? -g.width : 0, down = at.row + 1 < g.height ? g.width : 0;
  const int left = at.column > 0 ? -1 : 0, right = at.column + 1 < g.width ? 1 : 0;
  const int downs[3] = {up, 0, down}, rights[3] = {left, 0, right};
  const bf16* const from = Computed(in + channel);
  const int pixel_bytes = PixelBytes(g);
  const auto read = [&](int position) {
    const int pixel = index + downs[position / 3] + rights[position % 3];
    return *reinterpret_cast<const Octet*>(RowAt(from, pixel, pixel_bytes));
  };
  Octet largest = read(0);
  for (int position = 1; position < 9; ++position) TakeLarger(largest, read(position));
  return largest;
}

// In maps of an even width, a thread computes the maxima around two pixels of a row, which share six of the
// nine chunks that each has. Tiles of 128 filters leave no registers for that.
DEEPER_HD inline bool ArePairs(const Gemm& g, int tile_filters) {
  return g.width % 2 == 0 && tile_filters == 64;
}
// Of pixels `index` and `index + 1`.
struct OctetPair {
  Octet left, right;
};
DEEPER_HD inline OctetPair MaxChunks(const Gemm& g, const bf16* in, int index, int channel) {
  const Pixel at = PixelAt(g, index);
  const int up = at.row > 0 ? -g.width : 0, down = at.row + 1 < g.height ? g.width : 0;
  const int downs[3] = {up, 0, down},
            rights[4] = {at.column > 0 ? -1 : 0, 0, 1, at.column + 2 < g.width ? 2 : 1};
  const bf16* const from = Computed(in + channel);
  const int pixel_bytes = PixelBytes(g);
  Octet chunks[4][3];
  DEEPER_UNROLL
  for (int column = 0; column < 4; ++column) {
    DEEPER_UNROLL
    for (int row = 0; row < 3; ++row) {
      const int pixel = index + downs[row] + rights[column];
      chunks[column][row] = *reinterpret_cast<const Octet*>(RowAt(from, pixel, pixel_bytes));
    }
  }
  DEEPER_UNROLL
  for (Octet(&column)[3] : chunks) {
    TakeLarger(column[0], column[1]);
    TakeLarger(column[0], column[2]);
  }
  OctetPair largest = {chunks[1][0], {}};
  TakeLarger(largest.left, chunks[2][0]);
  largest.right = largest.left;
  TakeLarger(largest.left, chunks[0][0]);
  TakeLarger(largest.right, chunks[3][0]);
  return largest;
}

// The copies of a step by chunk. Calls its arguments as CopyPixels and PoolPixels do.
template <int kFilters, class Copy>
DEEPER_HD void CopyGradients(const Gemm& g, const GradientTile& tile, int step, int thread,
                             const Copy& copy) {
  const int element = CopyElement(thread);
  for (int i = 0; i < kFilters / kCopyRows; ++i) {
    const int row = CopyRow(thread, i);
    const int pixel = tile.first_pixel + step * kStepPixels + row % kBoxRows;
    const int filter = tile.filter + row / kBoxRows * kBoxRows + element;
    copy(RowOffset(row, element), pixel * g.out_pitch + filter, pixel < g.pixels() && filter < g.columns);
  }
}
template <int kFilters, bool kPairs, class Store>
DEEPER_HD void PoolChannels(const Gemm& g, const GradientTile& tile, const bf16* in, int step, int thread,
                            const Store& store) {
  const int element = CopyElement(thread), channel = tile.channel + element;
  const int first = tile.first_pixel + step * kStepPixels;
  const auto store_row = [&](int row, const Octet& maxima) {
    store(kFilters * kRowBytes + RowOffset(row, element), maxima);
  };
  if constexpr (kPairs) {
    static_assert(kPooledCopies == 2);
    const int row = 2 * CopyRow(thread, 0), pixel = first + row;
    OctetPair maxima = {};
    if (pixel < g.pixels() && channel < g.depth) maxima = MaxChunks(g, in, pixel, channel);
    store_row(row, maxima.left);
    store_row(row + 1, maxima.right);
  } else {
    for (int i = 0; i < kPooledCopies; ++i) {
      const int row = CopyRow(thread, i), pixel = first + row;
      Octet maxima = {};
      if (pixel < g.pixels() && channel < g.depth) maxima = MaxChunk(g, in, pixel, channel);
      store_row(row, maxima);
    }
  }
}

// The row address that each lane passes to ldmatrix.x4.trans: dy of 16 filters from `filter`, a0 to a3 of
// mma.m16n8k16.
DEEPER_HD constexpr int FilterMatrixOffset(int filter, int slice, int lane) {
  return WeightOffset(true, filter + lane / 8 % 2 * 8, slice * kSliceDepth + lane % 8 + lane / 16 * 8);
}
// The maxima of 16 channels: b0, b1 of the first 8, then of the next 8.
template <int kFilters>
DEEPER_HD constexpr int ChannelMatrixOffset(int channel, int slice, int lane) {
  return kFilters * kRowBytes +
         WeightOffset(true, channel + lane / 16 * 8, slice * kSliceDepth + lane % 8 + lane / 8 % 2 * 8);
}

}  // namespace deeper::conv
