// The index math of the first layers in one kernel (conv_stem.cu): a 7x7 convolution of stride 2 and padding
// 3 of images, bias, ReLU, and a 3x3 max pool of stride 2 and padding 1. The output of the convolution is
// never written. All of it also runs on the host, where tests/kernels/cuda/tensor_core/conv_stem_test.cpp
// checks it.
//
//   y[p, k] = max over the 3x3 places q of window p of  relu(bias[k] + sum over t, c of x[2 q + t, c] w[k, t,
//   c])
//
// Images have at most 4 channels, stored as 8. Only the first 4 are copied to shared memory: 8 bytes per
// pixel. A row of the filter covers 7 pixels. With the pixel after them, whose weights are zeros, these are
// 64 contiguous bytes, a depth of 32. They start at a multiple of 16 bytes, because the stride is 2. So
// ldmatrix reads them where they are, and the depth of the product is 7 * 32 = 224.
//
// A strip is up to 14 rows of up to 56 windows of one image. Two warps compute it from top to bottom, row by
// row of the convolution, each for 32 of the 64 filters. A ring of rows of the image in shared memory moves
// down with them. A warp holds all 112 places of a row, and of the rows above only the maxima of the windows
// that have begun. The first row of a strip is also the last one of the strip above, and is computed twice.
#pragma once

#include <cstdint>

#include "kernels/base/bf16.h"
#include "kernels/base/host_device.h"
#include "kernels/cuda/base/bf16_pairs.h"
#include "kernels/cuda/base/codegen.h"
#include "kernels/cuda/base/max_window.h"
#include "kernels/cuda/tensor_core/conv_tiling.h"

namespace deeper::conv {

constexpr int kStemFilters = 64;
constexpr int kStemKernel = 7, kStemPad = 3;  // the stride is 2
constexpr int kStemChannels = 4;              // that are read
constexpr int kStoredChannels = 8;            // of x and w in memory
constexpr int kTapPixels = 8;                 // of a row of the filter, with one of zeros
constexpr int kRowDepth = kTapPixels * kStemChannels;
constexpr int kRowSlices = kRowDepth / kSliceDepth;
constexpr int kStemSlices = kStemKernel * kRowSlices;
constexpr int kPixelCopy = kStemChannels * 2;  // bytes that move as one unit

// ---- Strips -------------------------------------------------------------------------------------------

constexpr int kStripFragments = 7;                  // of 16 places, 8 windows
constexpr int kStripWindows = kStripFragments * 8;  // in a row
constexpr int kMostStripRows = 14;                  // of windows
constexpr int kStripWarps = 2, kBlockStrips = 2;
constexpr int kWarpFilters = kStemFilters / kStripWarps;
constexpr int kWarpBlocks = kWarpFilters / 8;
constexpr int kStemThreads = 32 * kStripWarps * kBlockStrips;

struct Stem {
  int images = 1, height = 1, width = 1;  // of x

  // Of the convolution.
  DEEPER_HD int rows() const { return (height + 2 * kStemPad - kStemKernel) / 2 + 1; }
  DEEPER_HD int columns() const { return (width + 2 * kStemPad - kStemKernel) / 2 + 1; }
  // Of the windows.
  DEEPER_HD int window_rows() const { return (rows() - 1) / 2 + 1; }
  DEEPER_HD int window_columns() const { return (columns() - 1) / 2 + 1; }
  // Strips of an image, below and beside each other, and their rows of windows: the last may have fewer.
  DEEPER_HD int strips_down() const { return CeilDiv(window_rows(), kMostStripRows); }
  DEEPER_HD int strips_across() const {
    return window_columns() <= kStripWindows
               ? 1
               : 1 + CeilDiv(window_columns() - kStripWindows, kStripWindows - 1);
  }
  DEEPER_HD int strip_rows() const { return CeilDiv(window_rows(), strips_down()); }
  DEEPER_HD int strips() const { return images * strips_down() * strips_across(); }
  // Rows of the convolution in a strip: two for each row of windows, and the one above them.
  DEEPER_HD int steps() const { return 2 * strip_rows() + 1; }
  DEEPER_HD int blocks() const { return CeilDiv(strips(), kBlockStrips); }
};

// The first window of a row is complete only at the left edge of the map. Elsewhere the strip on the left
// has it as its last one.
struct Strip {
  int image;         // `images` if there is no such strip
  int row, column;   // of its first window
  int first_column;  // the first that it stores

  DEEPER_HD int first_place() const { return 2 * column; }               // column of the convolution
  DEEPER_HD int PlaceRow(int step) const { return 2 * row - 1 + step; }  // row of the convolution
};
DEEPER_HD inline Strip StripOf(const Stem& g, int index) {
  const int across = index % g.strips_across(), rest = index / g.strips_across();
  const int column = across * (kStripWindows - 1);
  return {rest / g.strips_down(), rest % g.strips_down() * g.strip_rows(), column,
          across > 0 ? column + 1 : column};
}

// ---- Shared memory ------------------------------------------------------------------------------------
// The weights, [64 filters][7 rows][8 pixels][4 channels], a ring of rows of the image for each strip, and
// the bias. The 16-byte chunks of a row hold 2 pixels. Those with an even number come first, then the others,
// since ldmatrix reads every second one. 16 bytes after each filter keep equal chunks of 8 filters in
// different banks.

constexpr int kFilterBytes = kStemSlices * kSliceDepth * 2 + 16;
constexpr int kStemWeightBytes = kStemFilters * kFilterBytes;
constexpr int kRowPixels = 2 * (kStripFragments * 16 - 1) + kTapPixels;
constexpr int kHalfRowBytes = CeilDiv(kRowPixels, 4) * 16;
constexpr int kImageRowBytes = 2 * kHalfRowBytes;
constexpr int kRingRows = 12;
constexpr int kRingBytes = kRingRows * kImageRowBytes;
constexpr int kBiasOffset = kStemWeightBytes + kBlockStrips * kRingBytes;  // of [64] fp32
constexpr int kStemSharedBytes = kBiasOffset + kStemFilters * static_cast<int>(sizeof(float));
static_assert(kStemSharedBytes <= 99 * 1024, "the smallest GPUs of the 8 series allow 99 KB per block");

DEEPER_HD constexpr int ChunkOffset(int chunk) {
  return chunk % 2 * kHalfRowBytes + chunk / 2 * 16;
}
// Of the pixel under tap 0 of place 0, and those to the right of it.
DEEPER_HD constexpr int PixelOffset(int pixel) {
  return ChunkOffset(pixel / 2) + pixel % 2 * kPixelCopy;
}
DEEPER_HD constexpr int FilterOffset(int filter, int row, int pixel) {
  return filter * kFilterBytes + (row * kTapPixels + pixel) * kPixelCopy;
}

// ---- Copies -------------------------------------------------------------------------------------------
// Step s reads the rows 2 s to 2 s + 6 of the strip's part of the image, counted from the first that its
// first step reads. They are in the ring at their number modulo 12. Group 0 of copies has the weights and
// rows 0 to 7, and group s > 0 the rows 2 s + 6 and 2 s + 7. During step s, group s + 2 is copied.

constexpr int kFirstRows = 8;
DEEPER_HD constexpr int FirstRowOfGroup(int group) {
  return group == 0 ? 0 : kFirstRows + 2 * (group - 1);
}

// Calls copy(offset in shared memory, index in w, whether it exists; otherwise zeros): thread by thread.
template <class Copy>
DEEPER_HD void CopyFilters(int thread, const Copy& copy) {
  constexpr int kCopies = kStemFilters * kStemKernel * kTapPixels;
  static_assert(kCopies % kStemThreads == 0);
  for (int i = 0; i < kCopies / kStemThreads; ++i) {
    const int number = thread + i * kStemThreads, pixel = number % kTapPixels, line = number / kTapPixels;
    const int filter = line / kStemKernel, row = line % kStemKernel;
    copy(FilterOffset(filter, row, pixel), (line * kStemKernel + pixel) * kStoredChannels,
         pixel < kStemKernel);
  }
}

// The same for a row of the image by the lanes of a warp. Offsets are those in the row of the ring.
template <class Copy>
DEEPER_HD void CopyImageRow(const Stem& g, const Strip& strip, int row, int lane, const Copy& copy) {
  const int in_image = 2 * strip.PlaceRow(0) - kStemPad + row;
  const bool row_exists = strip.image < g.images && in_image >= 0 && in_image < g.height;
  const int first = 2 * strip.first_place() - kStemPad;
  const int64_t index = (int64_t{strip.image} * g.height + in_image) * g.width + first;
  const int offset = PixelOffset(lane);
  DEEPER_UNROLL
  for (int i = 0; i < CeilDiv(kRowPixels, 32); ++i) {
    const int pixel = lane + i * 32;
    if (pixel >= kRowPixels) break;
    const int column = first + pixel;
    // 32 pixels are 16 chunks, 8 of each half.
    copy(offset + i * 8 * 16, (index + pixel) * kStoredChannels,
         row_exists && column >= 0 && column < g.width);
  }
}

// ---- Operands of mma.sync -----------------------------------------------------------------------------
// The rows of a fragment are the places of 8 windows: first those in the even columns, which are the middle
// columns of the windows, then those to the right of them. So a lane holds both places of a window
// (FragmentRow), and the place to the left of them is in the lane for the window before.

// The row address in the row of the ring that a lane passes to ldmatrix.x4: a0 to a3 of mma.m16n8k16.
DEEPER_HD constexpr int PlaceMatrixOffset(int lane) {
  const int place = lane % 8 * 2 + lane / 8 % 2;
  return ChunkOffset(place + lane / 16);
}
// What is added for a fragment and for a slice of the row of the filter: 16 and 2 chunks, half of them even.
DEEPER_HD constexpr int SliceOffset(int fragment, int slice) {
  return (fragment * 8 + slice) * 16;
}
// Weights of 16 filters from `filter`: b0, b1 of the first 8, then b0, b1 of the next 8. `slice` counts all.
DEEPER_HD constexpr int FilterMatrixOffset(int lane) {
  return (lane % 8 + lane / 16 * 8) * kFilterBytes + lane / 8 % 2 * 16;
}
DEEPER_HD constexpr int FilterSliceOffset(int filter, int slice) {
  return filter * kFilterBytes + slice * kSliceDepth * 2;
}

// ---- Maxima -------------------------------------------------------------------------------------------
// Of two filters at a time, in bf16 and after ReLU. A place outside the map is smaller than all others.

constexpr uint32_t kOutsidePair = 0xBF80BF80u;  // -1
constexpr uint32_t kAllBytes = 0x01010101u;     // a number in each byte of a word

// The lane with the window to the left, in this fragment or, for lanes 0 to 3, in the one before.
DEEPER_HD constexpr int LaneBefore(int lane) {
  return (lane + 28) % 32;
}

// Of two blocks of columns: their places, as in Maxima, are in the even and the odd bytes.
struct Largest {
  uint32_t values[2];
  uint32_t places;
};
DEEPER_HD inline void Take(Largest& largest, const uint32_t (&values)[2], uint32_t places) {
  const uint32_t larger = Selected(0x00FF00FFu, IsLargerPair(values[0], largest.values[0]),
                                   IsLargerPair(values[1], largest.values[1]));
  largest.places = Selected(larger, places, largest.places);
  DEEPER_UNROLL
  for (int i = 0; i < 2; ++i) largest.values[i] = LargerPair(largest.values[i], values[i]);
}
// Of the three places of a window in one row.
DEEPER_HD inline Largest LargestOfRow(const uint32_t (&left)[2], const uint32_t (&middle)[2],
                                      const uint32_t (&right)[2]) {
  Largest largest = {{left[0], left[1]}, 0};
  Take(largest, middle, kAllBytes);
  Take(largest, right, 2 * kAllBytes);
  return largest;
}
// `row`: 1 or 2, of the window.
DEEPER_HD inline void TakeRow(Largest& largest, const Largest& of_row, uint32_t row) {
  Take(largest, of_row.values, of_row.places + 3 * row * kAllBytes);
}
// The places of one of the blocks, in 16 bits each.
DEEPER_HD inline uint32_t PlacesOf(const Largest& largest, int block) {
  return largest.places >> block * 8 & 0x00FF00FFu;
}

// Bias and ReLU of two sums.
DEEPER_HD inline uint32_t ActivatedPair(float low, float high) {
  return LargerPair(RoundedPair(low, high), 0);
}

struct StemOutput {
  bf16* y = nullptr;             // [window][filter]
  uint8_t* positions = nullptr;  // likewise; nullptr: not needed
};

// Stores 8 filters of a window, in pairs, if this strip stores the window.
DEEPER_HD inline void StoreWindow(const Stem& g, const Strip& strip, int row, int column, int filter,
                                  const uint32_t (&values)[4], const uint32_t (&places)[4],
                                  const StemOutput& out) {
  if (strip.image >= g.images || row >= g.window_rows() || column < strip.first_column ||
      column >= g.window_columns()) {
    return;
  }
  const int64_t window = (int64_t{strip.image} * g.window_rows() + row) * g.window_columns() + column;
  const int64_t index = window * kStemFilters + filter;
  const Maxima maxima = {{{values[0], values[1], values[2], values[3]}},
                         {{BytesOf(places[0], places[1]), BytesOf(places[2], places[3])}}};
  *reinterpret_cast<Octet*>(out.y + index) = maxima.values;
  if (out.positions == nullptr) return;
  *reinterpret_cast<Positions*>(out.positions + index) = MaskedPositions(maxima);
}

}  // namespace deeper::conv
