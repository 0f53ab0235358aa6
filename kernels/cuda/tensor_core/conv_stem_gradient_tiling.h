// The index math of the gradients of the first convolution's weights and bias (conv_stem_gradient.cu), from
// the gradient of its max pool (conv_stem_tiling.h). The gradient of the convolution's output, z, is never in
// memory. All of it also runs on the host, where conv_stem_gradient_test.cpp checks it.
//
//   dw[k, t, c] = sum over q of dz[q, k] x[2 q + t, c]      db[k] = sum over q of dz[q, k]
//   dz[q, k]    = sum of dy[p, k] over the windows p whose maximum was at place q, rounded to bf16
//
// A band is the rows 2 r and 2 r + 1 of the convolution, by 112 places: 56 quads of 2x2 places. Each quad is
// covered by up to 4 windows, of the rows r and r + 1. The 7 warps of a block spread dy to dz in shared
// memory. Then each multiplies dz^T by the patches of one row of the filter: rows 64 filters, columns 32
// (kRowDepth), depth 224 places. The rows of the image are in a ring in shared memory. Bands follow each
// other from top to bottom. They are split over several blocks, and each block writes separate sums.
#pragma once

#include <cstdint>

#include "kernels/base/bf16.h"
#include "kernels/base/host_device.h"
#include "kernels/cuda/base/bf16_pairs.h"
#include "kernels/cuda/base/codegen.h"
#include "kernels/cuda/base/max_window.h"
#include "kernels/cuda/tensor_core/conv_pipeline.h"
#include "kernels/cuda/tensor_core/conv_stem_tiling.h"
#include "kernels/cuda/tensor_core/conv_tiling.h"

namespace deeper::conv {

constexpr int kBandThreads = 32 * kStemKernel;  // a warp for each row of the filter
constexpr int kBandQuads = 56;                  // beside each other
constexpr int kBandPlaces = 2 * kBandQuads;     // of a row
constexpr int kMostStemSplits = 2 * 132;        // two blocks per SM of the largest GPUs

// ---- Bands --------------------------------------------------------------------------------------------

DEEPER_HD inline int BandsAcross(const Stem& g) {
  return CeilDiv(g.window_columns(), kBandQuads);
}
DEEPER_HD inline int BandCount(const Stem& g) {
  return g.images * BandsAcross(g) * g.window_rows();
}
// Depends only on the shape, since it determines the order of sums.
DEEPER_HD inline int BandsOfSplit(const Stem& g) {
  return CeilDiv(BandCount(g), kMostStemSplits);
}
DEEPER_HD inline int StemSplits(const Stem& g) {
  return CeilDiv(BandCount(g), BandsOfSplit(g));
}

struct Band {
  int image, row, column;  // of its first window
};
DEEPER_HD inline Band BandOf(const Stem& g, int index) {
  const int column = index / g.window_rows();
  return {column / BandsAcross(g), index % g.window_rows(), column % BandsAcross(g) * kBandQuads};
}

DEEPER_HD inline void AdvanceBand(const Stem& g, Band& band) {
  if (++band.row < g.window_rows()) return;
  band.row = 0;
  band.column += kBandQuads;
  if (band.column < g.window_columns()) return;
  band.column = 0;
  ++band.image;
}

// ---- Shared memory ------------------------------------------------------------------------------------
// dz of two bands in turn, [2 rows][112 places][64 filters] as in conv_tiling.h, then the ring of rows of the
// image. A row has chunks of 2 pixels, in their order.

constexpr int kBandBytes = 2 * kBandPlaces * kRowBytes;
constexpr int kBandRowPixels = 2 * (kBandPlaces - 1) + kTapPixels;
constexpr int kBandRowBytes = kBandRowPixels * kPixelCopy;
static_assert(kStemFilters == kStepDepth && kBandRowBytes % 16 == 0);
// The rows of the image that a band reads. It begins with those that it shares with the one above.
constexpr int kBandRows = kStemKernel + 2, kNewRows = 4;
constexpr int kBandRingRows = kBandStages * kBandRows;
constexpr int kBandSharedBytes = kBandStages * kBandBytes + kBandRingRows * kBandRowBytes;
static_assert(kBandSharedBytes <= 99 * 1024, "the smallest GPUs of the 8 series allow 99 KB per block");

DEEPER_HD constexpr int RingSlot(int slot) {  // below twice the size of the ring
  return slot < kBandRingRows ? slot : slot - kBandRingRows;
}

// A band, and its rows in the ring: kBandRows from `slot`. The last `copied` of them are copied for it. The
// band before has copied the others.
struct BandRows {
  Band band;
  int slot = 0, copied = kBandRows;

  DEEPER_HD int SlotOf(int row) const { return RingSlot(slot + row); }
};
// Of the first band of a block.
DEEPER_HD inline BandRows FirstBandRows(const Stem& g, int index) {
  return {BandOf(g, index)};
}
DEEPER_HD inline void AdvanceRows(const Stem& g, BandRows& rows) {
  AdvanceBand(g, rows.band);
  rows.copied = rows.band.row == 0 ? kBandRows : kNewRows;
  rows.slot = RingSlot(rows.slot + rows.copied);
}

// Calls copy(offset in the row, index in x, whether it exists; otherwise zeros) for row `row` of a band.
template <class Copy>
DEEPER_HD void CopyBandRow(const Stem& g, const Band& band, int row, int lane, const Copy& copy) {
  const int in_image = 4 * band.row - kStemPad + row;
  const bool row_exists = in_image >= 0 && in_image < g.height;
  const int first = 4 * band.column - kStemPad;
  const int64_t index = (int64_t{band.image} * g.height + in_image) * g.width + first;
  DEEPER_UNROLL
  for (int i = 0; i < CeilDiv(kBandRowPixels, 32); ++i) {
    const int pixel = lane + i * 32;
    if (pixel >= kBandRowPixels) break;
    const int column = first + pixel;
    copy(pixel * kPixelCopy, (index + pixel) * kStoredChannels,
         row_exists && column >= 0 && column < g.width);
  }
}

// ---- Spreading ----------------------------------------------------------------------------------------
// Thread t spreads 8 filters from t % 8 * 8 to the quads t / 8 and t / 8 + 28.

constexpr int kThreadsOfQuad = kStemFilters / kChunk;
constexpr int kThreadQuads = 2;
static_assert(kThreadQuads == kBandQuads * (kStemFilters / kChunk) / kBandThreads);
DEEPER_HD constexpr int ChunkOfThread(int thread) {
  return thread % kThreadsOfQuad * kChunk;
}
DEEPER_HD constexpr int QuadOfThread(int thread, int i) {
  return (thread + i * kBandThreads) / kThreadsOfQuad;
}

struct StemGradient {
  const bf16* dy = nullptr;            // [window][filter]
  const uint8_t* positions = nullptr;  // likewise
};

// 8 filters of the four windows around the places of a quad: the first is around place 0, the others are to
// the right of it, below it, and both.
struct QuadWindows {
  Octet values[4];
  Positions positions[4];
};
DEEPER_HD inline QuadWindows WindowsOf(const Stem& g, const Band& band, int quad, int filter,
                                       const StemGradient& in) {
  constexpr uint32_t kNowhere = 0x40404040u;
  const int column = band.column + quad;
  const bool exists = column < g.window_columns();
  const bool below = band.row + 1 < g.window_rows(), right = column + 1 < g.window_columns();
  const bool windows_exist[4] = {exists, exists && right, exists && below, exists && right && below};
  const int window = (band.image * g.window_rows() + band.row) * g.window_columns() + (exists ? column : 0);
  const int across = right ? 1 : 0, down = below ? g.window_columns() : 0;
  const int windows[4] = {window, window + across, window + down, window + across + down};
  QuadWindows loaded;
  DEEPER_UNROLL
  for (int i = 0; i < 4; ++i) {
    loaded.positions[i] =
        *reinterpret_cast<const Positions*>(RowAt(in.positions + filter, windows[i], kStemFilters));
    loaded.values[i] = *reinterpret_cast<const Octet*>(
        RowAt(in.dy + filter, windows[i], kStemFilters * static_cast<int>(sizeof(bf16))));
  }
  DEEPER_UNROLL
  for (int i = 0; i < 4; ++i) {
    DEEPER_UNROLL
    for (uint32_t& word : loaded.positions[i].words) word = windows_exist[i] ? word : kNowhere;
  }
  return loaded;
}

// dz of a place of the quad: row place / 2, column place % 2.
DEEPER_HD inline Octet GradientOfPlace(const QuadWindows& windows, int place) {
  float sums[kChunk] = {};
  DEEPER_UNROLL
  for (int i = 0; i < 4; ++i) {
    // Of the place in the window. Only nine pairs of a place and a window are possible.
    const int row = place / 2 + 1 - i / 2 * 2, column = place % 2 + 1 - i % 2 * 2;
    if (row < 0 || column < 0) continue;
    const uint32_t position = static_cast<uint32_t>(row * 3 + column) * 0x01010101u;
    DEEPER_UNROLL
    for (int j = 0; j < kChunk; ++j) {
      const uint32_t pair = windows.values[i].pairs[j / 2];
      AddIfEqual(sums[j], j % 2 == 0 ? LowOf(pair) : HighOf(pair), windows.positions[i].words[j / 4],
                 position, j % 4);
    }
  }
  Octet gradient;
  DEEPER_UNROLL
  for (int j = 0; j < kChunk / 2; ++j) gradient.pairs[j] = RoundedPair(sums[2 * j], sums[2 * j + 1]);
  return gradient;
}
// Where a place of a quad is in dz of a band.
DEEPER_HD constexpr int QuadOffset(int quad, int place, int filter) {
  return RowOffset(place / 2 * kBandPlaces + 2 * quad + place % 2, filter);
}

// ---- Operands of mma.sync -----------------------------------------------------------------------------
// Both have places in rows and are transposed by ldmatrix. A slice is 16 places of a row of a band.

// dz of 16 filters from `filter`: a0 to a3. Slice number 7 e + f is that of the places from 16 f of row e.
DEEPER_HD constexpr int GradientMatrixOffset(int filter, int slice, int lane) {
  return RowOffset(slice * kSliceDepth + lane % 8 + lane / 16 * 8, filter + lane / 8 % 2 * 8);
}
// Patches of 16 columns from `column`, in the row of the ring: b0, b1 of the first 8, then of the next 8.
DEEPER_HD constexpr int PatchMatrixOffset(int column, int place, int lane) {
  return (place + lane % 8 + lane / 8 % 2 * 8 + column / 8 + lane / 16) * 16;
}

// The last four columns belong to no tap. Ones there make their sums those of dz, for the bias. b2 and b3 of
// the lanes from kFirstBiasLane on are of these columns.
constexpr int kFirstBiasLane = 16;
constexpr uint32_t kPairOfOnes = 0x3F803F80u;

// ---- Sums ---------------------------------------------------------------------------------------------
// [split][filter][tap][4 channels], then [filter] of the bias.

constexpr int kStemWeights = kStemFilters * kStemKernel * kStemKernel * kStemChannels;
constexpr int kStemSums = kStemWeights + kStemFilters;
// Of a column of the product for a row of the filter; -1 for those that have no sum of their own. In
// [filter][tap], the sum of an even column precedes that of the next column.
DEEPER_HD constexpr int StemSumIndex(int filter, int row, int column) {
  const int pixel = column / kStemChannels;
  if (pixel == kStemKernel) return row == 0 && column % kStemChannels == 0 ? kStemWeights + filter : -1;
  return ((filter * kStemKernel + row) * kStemKernel + pixel) * kStemChannels + column % kStemChannels;
}
// The place in dw, [filter][tap][8 channels], of a sum.
DEEPER_HD constexpr int StoredWeight(int sum) {
  return sum / kStemChannels * kStoredChannels + sum % kStemChannels;
}

}  // namespace deeper::conv
