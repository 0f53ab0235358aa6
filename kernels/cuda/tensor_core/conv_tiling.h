// The index math of our tensor core convolutions (conv_sm80.cu, conv_sm90.cu): the position of each number in
// memory, in shared memory and in registers. All of it also runs on the host, where
// tests/kernels/cuda/tensor_core/conv_tiling_test.cpp checks it and conv_emulation_test.cpp computes whole
// convolutions with it.
//
// A convolution of stride 1 with "same" padding is a product of matrices. Its rows are the pixels, both of
// the input and of the output. Its inner dimension ("depth") covers the taps of the filter and, within a tap,
// the input channels. Its columns are the output channels:
//   forward        y[p, k]  = sum over t, c of  x[p + at(t), c] w[k, t, c]             depth C, columns K
//   backward data  dx[p, c] = sum over t, k of dy[p + at(t), k] w[k, taps - 1 - t, c]  depth K, columns C
// where at(t) is the tap's position relative to the filter's centre. Backward data uses the filter rotated by
// 180 degrees, and reads w with contiguous columns instead of contiguous depth.
//
// A block computes a tile of 128 rows by 64 or 128 columns, on sm_90 by up to 224. It processes the depth in
// steps of 64 channels of one tap, and a step in slices of 16, the depth of one tensor core instruction.
// Slices entirely after the last channel are skipped.
//
// On sm_90, a step may also consist of all taps of a row of the filter (Gemm::across): the taps share the
// pixels in shared memory, shifted by one pixel each. For this, pad() columns of zeros follow each row of the
// map, so that a shift across the end of a row meets zeros. The product then has rows for these columns, too
// ("places"); they are not stored.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/base/bf16.h"
#include "kernels/base/host_device.h"
#include "kernels/cuda/base/max_window.h"

namespace deeper::conv {

constexpr int kTilePixels = 128;
constexpr int kStepDepth = 64;
constexpr int kSliceDepth = 16;
constexpr int kChunk = 8;                             // channels that move as one unit: 16 bytes
constexpr int kBoxRows = 64;                          // backward: weights that move as one unit
constexpr int kRowBytes = kStepDepth * 2;             // per row in shared memory
constexpr int kPixelBytes = kTilePixels * kRowBytes;  // per step
constexpr int kBoxBytes = kBoxRows * kRowBytes;       // per box of weights
constexpr int kSwizzleBytes = 8 * kRowBytes;          // period of the swizzle
constexpr int StageBytes(int columns) {
  return kPixelBytes + columns * kRowBytes;
}

DEEPER_HD constexpr int CeilDiv(int a, int b) {
  return (a + b - 1) / b;
}

// The pixels of a step with `across` taps, and their bytes in a stage: whole periods of the swizzle.
DEEPER_HD constexpr int StepPixels(int across) {
  return kTilePixels + across - 1;
}
DEEPER_HD constexpr int StepPixelBytes(int across) {
  return CeilDiv(StepPixels(across), 8) * kSwizzleBytes;
}
// The bytes of a tap's weights in a stage. Backward, boxes have 64 columns.
DEEPER_HD constexpr int TapBytes(bool backward, int columns) {
  return backward ? CeilDiv(columns, kBoxRows) * kBoxBytes : columns * kRowBytes;
}

struct Gemm {
  int images = 1, height = 1, width = 1;
  int depth = 0, columns = 0;  // channels read and written, multiples of kChunk
  int kernel = 1;              // odd
  bool backward = false;
  int across = 1;                                       // taps per step: 1 or kernel
  int64_t in_pitch = 0, out_pitch = 0, mask_pitch = 0;  // elements from pixel to pixel

  DEEPER_HD int pixels() const { return images * height * width; }
  DEEPER_HD int taps() const { return kernel * kernel; }
  DEEPER_HD int pad() const { return kernel / 2; }
  DEEPER_HD int steps() const { return taps() / across * CeilDiv(depth, kStepDepth); }
  // Rows of the product: pixels, and the columns of zeros between them.
  DEEPER_HD int row_places() const { return across > 1 ? width + pad() : width; }
  DEEPER_HD int places() const { return images * height * row_places(); }
  DEEPER_HD int pixel_tiles() const { return CeilDiv(places(), kTilePixels); }
};

// ---- Tiles and steps ----------------------------------------------------------------------------------

struct Tile {
  int index, place, column;  // tile number among those of places; its first place and column
};

// Blocks that read the same pixels are consecutive.
DEEPER_HD inline Tile TileOf(const Gemm& g, int tile_columns, int block) {
  const int across = CeilDiv(g.columns, tile_columns);
  return {block / across, block / across * kTilePixels, block % across * tile_columns};
}
DEEPER_HD inline int Blocks(const Gemm& g, int tile_columns) {
  return g.pixel_tiles() * CeilDiv(g.columns, tile_columns);
}

struct Pixel {
  int image, row, column;  // column >= width: zeros between rows
};
DEEPER_HD inline Pixel PixelAt(const Gemm& g, int place) {
  const int row = place / g.row_places();
  return {row / g.height, row % g.height, place - row * g.row_places()};
}
// The index of a place's pixel, or -1.
template <int kAcross>
DEEPER_HD int PixelIndex(const Gemm& g, int place) {
  if (place >= g.places()) return -1;
  if (kAcross == 1) return place;
  const int row = place / g.row_places(), column = place - row * g.row_places();
  return column < g.width ? row * g.width + column : -1;
}

struct Step {
  int row, column;  // of the first tap: 0 to kernel - 1
  int weight_tap;   // position of this tap in w; that of the next is lower by 1 if backward, else higher
  int depth;        // first channel of the step
  int slices;       // slices that contain channels: 1 to 4
};
DEEPER_HD inline int SlicesFrom(const Gemm& g, int depth) {
  const int left = g.depth - depth;
  return left < kStepDepth ? CeilDiv(left, kSliceDepth) : kStepDepth / kSliceDepth;
}
// Steps in their order: the channels of a tap, then the next tap.
DEEPER_HD inline Step FirstStep(const Gemm& g) {
  return {0, 0, g.backward ? g.taps() - 1 : 0, 0, SlicesFrom(g, 0)};
}
DEEPER_HD inline void Advance(const Gemm& g, Step& step) {
  step.depth += kStepDepth;
  if (step.depth >= g.depth) {
    step.depth = 0;
    step.weight_tap += g.backward ? -g.across : g.across;
    step.column += g.across;
    if (step.column == g.kernel) {
      step.column = 0;
      ++step.row;
    }
  }
  step.slices = SlicesFrom(g, step.depth);
}

// The index of an element of w, [filter][tap][channel].
DEEPER_HD inline int64_t WeightIndex(const Gemm& g, int weight_tap, int column, int depth) {
  const int filter = g.backward ? depth : column, channel = g.backward ? column : depth;
  return (int64_t{filter} * g.taps() + weight_tap) * (g.backward ? g.columns : g.depth) + channel;
}

// ---- Shared memory ------------------------------------------------------------------------------------
// A stage holds the pixels of a step, [pixels][64 depth], then the weights of its taps: forward [columns][64
// depth], backward a sequence of boxes of [64 depth][64 columns]. All consist of rows of 64 elements. The
// 16-byte chunks within a row are permuted so that equal chunks of 8 rows are in different banks. TMA and
// wgmma call this pattern a swizzle of 128 bytes. It depends on the address alone; the stage must start at a
// multiple of 1024.

// Offset in bytes.
DEEPER_HD constexpr int RowOffset(int row, int element) {
  return row * kRowBytes + ((element / kChunk) ^ (row % 8)) * 16 + element % kChunk * 2;
}
DEEPER_HD constexpr int WeightOffset(bool backward, int column, int depth) {
  return backward ? RowOffset(column / kBoxRows * kBoxRows + depth, column % kBoxRows)
                  : RowOffset(column, depth);
}

// ---- Copies, chunk by chunk (sm_80) -------------------------------------------------------------------
// Thread t copies chunk t % 8 of the rows t / 8, t / 8 + 32, ...

constexpr int kCopyThreads = 256;
constexpr int kRowChunks = kStepDepth / kChunk;
constexpr int kCopyRows = kCopyThreads / kRowChunks;
constexpr int kPixelCopies = kTilePixels / kCopyRows;  // per thread and step

DEEPER_HD constexpr int CopyRow(int thread, int i) {
  return thread / kRowChunks + i * kCopyRows;
}
DEEPER_HD constexpr int CopyElement(int thread) {
  return thread % kRowChunks * kChunk;
}

// The source pixel of a thread. A missing pixel has coordinates that are too far away for every tap.
struct Source {
  int row = -(1 << 20), column = 0;
  int64_t index = 0;  // index of its first channel
  int pixel = 0;
};
DEEPER_HD inline Source SourceAt(const Gemm& g, int index) {
  if (index >= g.pixels()) return {};
  const Pixel pixel = PixelAt(g, index);
  return {pixel.row, pixel.column, index * g.in_pitch, index};
}
DEEPER_HD inline Source SourceOf(const Gemm& g, const Tile& tile, int thread, int i) {
  return SourceAt(g, tile.place + CopyRow(thread, i));
}

// Calls copy(offset in shared memory, index in memory, whether the source exists; otherwise zeros).
template <class Copy>
DEEPER_HD void CopyPixels(const Gemm& g, const Source (&sources)[kPixelCopies], const Step& step, int thread,
                          const Copy& copy) {
  const int channel = CopyElement(thread);
  const int down = step.row - g.pad(), right = step.column - g.pad();
  const int64_t shift = (int64_t{down} * g.width + right) * g.in_pitch + step.depth + channel;
  for (int i = 0; i < kPixelCopies; ++i) {
    const int row = sources[i].row + down, column = sources[i].column + right;
    const bool inside =
        row >= 0 && row < g.height && column >= 0 && column < g.width && step.depth + channel < g.depth;
    copy(RowOffset(CopyRow(thread, i), channel), sources[i].index + shift, inside);
  }
}
template <int kColumns, class Copy>
DEEPER_HD void CopyWeights(const Gemm& g, const Tile& tile, const Step& step, int thread, const Copy& copy) {
  for (int i = 0; i < kColumns / kCopyRows; ++i) {
    const int row = CopyRow(thread, i);
    const int element = CopyElement(thread);
    const int box = row / kBoxRows * kBoxRows;
    const int column = tile.column + (g.backward ? box + element : row);
    const int depth = step.depth + (g.backward ? row - box : element);
    copy(kPixelBytes + RowOffset(row, element), WeightIndex(g, step.weight_tap, column, depth),
         column < g.columns && depth < g.depth);
  }
}

// ---- Boxes (sm_90) ------------------------------------------------------------------------------------
// TMA moves the pixels of a step as one box in the order of their index, across rows and images. It moves the
// weights of a tap as one box of all columns, or backward as boxes of 64. It writes zeros for what is
// outside.

// cuTensorMapEncodeIm2col: the corners of the pixels under a filter's first tap, relative to the corners of
// the image.
struct Corner {
  int row, column;
};
DEEPER_HD inline Corner LowerCorner(const Gemm& g) {
  return {-g.pad(), -g.pad()};
}
// With several taps per step, a row ends after its last pixel: that makes row_places() columns.
DEEPER_HD inline Corner UpperCorner(const Gemm& g) {
  return {-g.pad(), g.across > 1 ? 0 : -g.pad()};
}

// The position of the first tap of the tile's first place, at channel 0.
struct PixelBox {
  int channel, column, row, image;
};
DEEPER_HD inline PixelBox PixelBoxOf(const Gemm& g, const Tile& tile) {
  const Pixel first = PixelAt(g, tile.place);
  return {0, first.column - g.pad(), first.row - g.pad(), first.image};
}

// The first element of box number `box` of a tap of the step.
struct WeightBox {
  int channel, tap, filter;
};
DEEPER_HD inline WeightBox WeightBoxOf(const Gemm& g, const Tile& tile, const Step& step, int tap, int box) {
  const int column = tile.column + box * kBoxRows;
  return g.backward ? WeightBox{column, step.weight_tap - tap, step.depth}
                    : WeightBox{step.depth, step.weight_tap + tap, column};
}
// Its offset in the stage.
DEEPER_HD constexpr int WeightBoxOffset(bool backward, int across, int columns, int tap, int box) {
  return StepPixelBytes(across) + tap * TapBytes(backward, columns) + box * kBoxBytes;
}

// ---- Operands of wgmma (sm_90) ------------------------------------------------------------------------

// PTX ISA, "Matrix descriptor format": addresses and offsets in units of 16 bytes. 1 in the two highest bits
// selects the swizzle of 128 bytes.
DEEPER_HD constexpr uint64_t Descriptor(uint32_t address, int leading_bytes, int stride_bytes) {
  return uint64_t{(address & 0x3FFFF) >> 4} | uint64_t(leading_bytes >> 4) << 16 |
         uint64_t(stride_bytes >> 4) << 32 | uint64_t{1} << 62;
}

// Depth is contiguous. The stride is the distance from 8 rows to the next 8; there is no leading offset. A
// slice is 32 bytes of each row. A tap of the step is one row further. The base offset stays 0, since the
// pattern of the swizzle still starts at a multiple of 1024.
DEEPER_HD constexpr uint64_t PixelDescriptor(uint32_t stage, int warpgroup, int tap, int slice) {
  return Descriptor(stage + (warpgroup * 64 + tap) * kRowBytes + slice * kSliceDepth * 2, 16, kSwizzleBytes);
}
// `weights`: the address of those of the tap. Backward: columns are contiguous. The leading offset is the
// distance from 64 columns to the next 64, the stride that from 8 of depth to the next 8. A slice is 16 rows.
DEEPER_HD constexpr uint64_t WeightDescriptor(bool backward, uint32_t weights, int slice) {
  return backward ? Descriptor(weights + slice * kSliceDepth * kRowBytes, kBoxBytes, kSwizzleBytes)
                  : Descriptor(weights + slice * kSliceDepth * 2, 16, kSwizzleBytes);
}

// ---- Operands of mma.sync (sm_80) ---------------------------------------------------------------------
// The row that each lane passes to ldmatrix.x4: lanes 0 to 7 the rows of the first 8x8 matrix, and so on.

// Pixels [16][16 depth] from `row`: matrices a0 to a3 of mma.m16n8k16.
DEEPER_HD constexpr int PixelMatrixOffset(int row, int slice, int lane) {
  return RowOffset(row + lane % 16, slice * kSliceDepth + lane / 16 * 8);
}
// Weights of 16 columns from `column`: b0, b1 of the first 8, then b0, b1 of the next 8. Backward transposes
// them during the load.
DEEPER_HD constexpr int WeightMatrixOffset(bool backward, int column, int slice, int lane) {
  const int second = lane / 8 % 2 * 8, next = lane / 16 * 8;
  return kPixelBytes + (backward
                            ? WeightOffset(true, column + next, slice * kSliceDepth + lane % 8 + second)
                            : WeightOffset(false, column + next + lane % 8, slice * kSliceDepth + second));
}

// ---- Accumulators -------------------------------------------------------------------------------------
// Both instructions leave a warp with 16 rows in blocks of 8 columns. A lane holds four numbers of each
// block. Number i:
DEEPER_HD constexpr int FragmentRow(int lane, int i) {
  return lane / 4 + i / 2 * 8;
}
DEEPER_HD constexpr int FragmentColumn(int lane, int i) {
  return lane % 4 * 2 + i % 2;
}

// A quad of 4 neighbouring lanes holds 8 columns of a row, 2 per lane, in each of 4 neighbouring blocks. It
// transposes these 4x4 pairs by exchanging with the neighbours at distance 1 and then 2. Each lane then holds
// one whole block of 16 bytes: v[i] of lane q becomes the former v[q] of lane i. Here i is an index without
// the bit of the distance.
constexpr int kGroupColumns = 32;
DEEPER_HD inline uint32_t Outgoing(const uint32_t (&v)[4], int lane, int distance, int i) {
  return (lane & distance) != 0 ? v[i] : v[i | distance];
}
// Uses selections instead of an index, since registers have no addresses.
DEEPER_HD inline void Incoming(uint32_t (&v)[4], int lane, int distance, int i, uint32_t value) {
  const bool odd = (lane & distance) != 0;
  v[i] = odd ? value : v[i];
  v[i | distance] = odd ? v[i | distance] : value;
}
// The first column of the lane's block within the group, after the exchange.
DEEPER_HD constexpr int ChunkColumn(int lane) {
  return lane % 4 * kChunk;
}

// The index of partial sums of columns, [tile of pixels][column].
DEEPER_HD inline int64_t SumIndex(const Gemm& g, const Tile& tile, int column) {
  return int64_t{tile.index} * g.columns + tile.column + column;
}

// ---- Results ------------------------------------------------------------------------------------------

// The operations on the sums before they are stored, and their destination.
struct Epilogue {
  bf16* out = nullptr;
  const bf16* bias = nullptr;        // forward: this bias,
  const float* wide_bias = nullptr;  // or this one, or neither
  bool relu = false;
  const bf16* mask = nullptr;  // backward: together with the partial sums of columns (SumIndex), or neither
  float* sums = nullptr;
};

// For two neighbouring columns; the first one is even.
struct Bias {
  float low = 0, high = 0;
};
DEEPER_HD inline Bias BiasOf(const Gemm& g, const Epilogue& e, int column) {
  if (column >= g.columns) return {};
  if (e.wide_bias != nullptr) return {e.wide_bias[column], e.wide_bias[column + 1]};
  if (e.bias != nullptr) return {ToFloat(e.bias[column]), ToFloat(e.bias[column + 1])};
  return {};
}
DEEPER_HD inline float Activated(const Epilogue& e, float value) {
  const float least = e.relu ? 0.0f : -INFINITY;
  return value < least ? least : value;  // keeps NaN
}

// A lane keeps one bit for each element of its masks. Those of chunk i, pair j, are bits i % 4 * 4 + j and
// the same plus 16 of word i / 4.
constexpr int kWordChunks = 4;
DEEPER_HD inline uint32_t BitsOfPair(int chunk, int pair) {
  return 0x10001u << (chunk % kWordChunks * 4 + pair);
}
// The bits of 8 columns of a pixel that are greater than 0; 0 if there is no such pixel or column.
DEEPER_HD inline uint32_t MaskBits(const Gemm& g, const Epilogue& e, int pixel, int column, int chunk) {
  if (e.mask == nullptr || pixel < 0 || column >= g.columns) return 0;
  const Octet mask = *reinterpret_cast<const Octet*>(e.mask + pixel * g.mask_pitch + column);
  uint32_t bits = 0;
  for (int j = 0; j < kChunk / 2; ++j) bits |= IsLargerPair(mask.pairs[j], 0) & BitsOfPair(chunk, j);
  return bits;
}
DEEPER_HD inline uint32_t MaskedPair(uint32_t pair, uint32_t bits, int chunk, int j) {
  const uint32_t ones = bits >> (chunk % kWordChunks * 4 + j) & 0x10001u;  // 1 in the halves to keep
  return pair & ones * 0xFFFFu;
}

// Masks and stores chunk number `chunk` of a lane: 8 columns of a pixel, packed in pairs. Adds the stored
// values to their sums. Does nothing for a pixel or a column that does not exist.
template <bool kBackward>
DEEPER_HD void StoreChunk(const Gemm& g, const Epilogue& e, int pixel, int column, const uint32_t (&pairs)[4],
                          uint32_t bits, int chunk, float (&sums)[kChunk]) {
  if (pixel < 0 || column >= g.columns) return;
  Octet values = {{pairs[0], pairs[1], pairs[2], pairs[3]}};
  if (kBackward && e.mask != nullptr) {
    for (int j = 0; j < kChunk / 2; ++j) {
      values.pairs[j] = MaskedPair(pairs[j], bits, chunk, j);
      sums[2 * j] += LowOf(values.pairs[j]);
      sums[2 * j + 1] += HighOf(values.pairs[j]);
    }
  }
  *reinterpret_cast<Octet*>(e.out + pixel * g.out_pitch + column) = values;
}

}  // namespace deeper::conv
