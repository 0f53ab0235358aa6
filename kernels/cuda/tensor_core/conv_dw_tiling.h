// The gradient of the weights of a 3x3 convolution of stride 1 with "same" padding, by wgmma
// (conv_dw_sm90.cu). More of the index math: conv_tiling.h.
//   dw[k, t, c] = sum over p of  dy[p, k] x[p + at(t), c]    rows K, columns C, depth pixels
// The Gemm is that of the forward convolution with a row of taps per step (Gemm::across). x is its input, and
// dy has the layout of its output. K is its number of columns, C its depth.
//
// A tile is 64 filters by a row of three taps by up to 128 channels. Its places, in steps of 128, are split
// over several blocks, and each block writes separate sums. A stage holds dy, [128 places][64 filters], then
// x in boxes of [130 places][64 channels], in rows as in conv_tiling.h. Both have contiguous rows or columns
// instead of contiguous depth, so wgmma transposes both. The places are those of a row of taps: dy has zeros
// after the end of each row of the map, too, so that nothing is added for them.
#pragma once

#include <cstdint>

#include "kernels/base/host_device.h"
#include "kernels/cuda/base/codegen.h"
#include "kernels/cuda/tensor_core/conv_tiling.h"

namespace deeper::conv {

constexpr int kDwTaps = 3;  // of a tile
constexpr int kTileFilters = 64;
constexpr int kDwSlices = kTilePixels / 2 / kSliceDepth;  // of a step, by each of two warpgroups
// The SMs of an H200 and of an H100 SXM. A block needs a whole one.
constexpr int kDwSms = 132;
// About the time of the beginning and the end of a block, in steps.
constexpr int kDwEndSteps = 4;

// Of x, in a stage.
DEEPER_HD constexpr int DwBoxes(int tile_channels) {
  return CeilDiv(tile_channels, kStepDepth);
}
DEEPER_HD constexpr int DwBoxOffset(int box) {
  return kPixelBytes + box * StepPixelBytes(kDwTaps);
}
constexpr int DwStageBytes(int tile_channels) {
  return DwBoxOffset(DwBoxes(tile_channels));
}

struct DwTiles {
  int of_filters, of_rows, of_channels;  // rows of the filter
  int steps;                             // per split; the last may have fewer
  int splits;                            // of the places
  DEEPER_HD int count() const { return of_filters * of_rows * of_channels; }
  DEEPER_HD int blocks() const { return count() * splits; }
  // Of all SMs, also those that have no block in the last round.
  int rounds() const { return CeilDiv(blocks(), kDwSms); }
};
// Depends only on the shape, since it determines the order of sums. At most two rounds of blocks are split.
inline DwTiles DwTilesOf(const Gemm& g, int tile_channels) {
  DwTiles best = {CeilDiv(g.columns, kTileFilters), g.kernel, CeilDiv(g.depth, tile_channels), 0, 0};
  const int steps = CeilDiv(g.places(), kTilePixels);
  int least = 0;
  for (int splits = 1; splits == 1 || splits * best.count() <= 2 * kDwSms; ++splits) {
    DwTiles tiles = best;
    tiles.steps = CeilDiv(steps, splits);
    tiles.splits = CeilDiv(steps, tiles.steps);
    const int time = tiles.rounds() * (tiles.steps + kDwEndSteps);
    if (splits > 1 && time >= least) continue;
    best = tiles;
    least = time;
  }
  return best;
}

struct DwTile {
  int split, filter, row, channel;  // the split's number, its first filter, its row of taps, first channel
  int first_place, steps;
};
// Blocks that read the same places are consecutive.
DEEPER_HD inline DwTile DwTileOf(const Gemm& g, const DwTiles& tiles, int tile_channels, int block) {
  const int split = block / tiles.count(), tile = block % tiles.count();
  const int of_filter = tiles.of_rows * tiles.of_channels;
  const int left = CeilDiv(g.places(), kTilePixels) - split * tiles.steps;
  return {split,
          tile / of_filter * kTileFilters,
          tile % of_filter / tiles.of_channels,
          tile % tiles.of_channels * tile_channels,
          split * tiles.steps * kTilePixels,
          left < tiles.steps ? left : tiles.steps};
}

// The index of partial sums, [split][filter][tap][channel].
DEEPER_HD inline int64_t DwIndex(const Gemm& g, int split, int filter, int tap, int channel) {
  return ((int64_t{split} * g.columns + filter) * g.taps() + tap) * g.depth + channel;
}
inline int64_t DwPartialSums(const Gemm& g, int tile_channels) {
  return DwIndex(g, DwTilesOf(g, tile_channels).splits, 0, 0, 0);
}

// Calls store(index of partial sums, tap, block, i) for the sums of a lane: numbers i and i + 1 of each block
// of 8 channels. `warp`: of the warpgroup. Four lanes have 8 neighbouring channels: 32 bytes.
template <int kChannels, class Store>
DEEPER_HD void StorePartial(const Gemm& g, const DwTile& tile, int warp, int lane, const Store& store) {
  DEEPER_UNROLL
  for (int i = 0; i < 4; i += 2) {
    const int filter = tile.filter + warp * 16 + FragmentRow(lane, i);
    const int channel = tile.channel + FragmentColumn(lane, i);
    if (filter >= g.columns) continue;
    DEEPER_UNROLL
    for (int tap = 0; tap < kDwTaps; ++tap) {
      const int64_t index = DwIndex(g, tile.split, filter, tile.row * kDwTaps + tap, channel);
      DEEPER_UNROLL
      for (int block = 0; block < kChannels / 8; ++block) {
        if (channel + block * 8 < g.depth) store(index + block * 8, tap, block, i);
      }
    }
  }
}

// The boxes of a step, whose first place is `first`, for TMA. Those of dy have no taps.
DEEPER_HD inline PixelBox DyBoxOf(const DwTile& tile, const Pixel& first) {
  return {tile.filter, first.column, first.row, first.image};
}
DEEPER_HD inline PixelBox XBoxOf(const Gemm& g, const DwTile& tile, const Pixel& first, int box) {
  return {tile.channel + box * kStepDepth, first.column - g.pad(), first.row - g.pad(), first.image};
}
// The first tap of the tile.
DEEPER_HD inline Step TapsOf(const DwTile& tile) {
  return {tile.row, 0, 0, 0, 0};
}

// Operands of wgmma. The filters, or the channels, are contiguous: as WeightDescriptor, backward. A slice is
// 16 places, and a tap of x is one place further.
DEEPER_HD constexpr uint64_t DyDescriptor(uint32_t stage, int warpgroup, int slice) {
  return Descriptor(stage + (warpgroup * 64 + slice * kSliceDepth) * kRowBytes, kPixelBytes, kSwizzleBytes);
}
DEEPER_HD constexpr uint64_t XDescriptor(uint32_t stage, int warpgroup, int tap, int slice) {
  return Descriptor(stage + DwBoxOffset(0) + (warpgroup * 64 + slice * kSliceDepth + tap) * kRowBytes,
                    StepPixelBytes(kDwTaps), kSwizzleBytes);
}

}  // namespace deeper::conv
