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
// A block computes a tile of 128 pixels by 64, 128 or, on sm_90, 192 columns. It processes the depth in steps
// of 64 channels of one tap, and a step in slices of 16, the depth of one tensor core instruction. Slices
// entirely after the last channel are skipped.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/base/bf16.h"
#include "kernels/base/host_device.h"

namespace deeper::conv {

constexpr int kTilePixels = 128;
constexpr int kStepDepth = 64;
constexpr int kSliceDepth = 16;
constexpr int kChunk = 8;                             // channels that move as one unit: 16 bytes
constexpr int kBoxRows = 64;                          // of weights that move as one unit
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

struct alignas(16) Chunk {
  bf16 v[kChunk];
};

struct Gemm {
  int images = 1, height = 1, width = 1;
  int depth = 0, columns = 0;  // channels read and written, multiples of kChunk
  int kernel = 1;              // odd
  bool backward = false;
  int64_t in_pitch = 0, out_pitch = 0, mask_pitch = 0;  // elements from pixel to pixel

  DEEPER_HD int pixels() const { return images * height * width; }
  DEEPER_HD int taps() const { return kernel * kernel; }
  DEEPER_HD int pad() const { return kernel / 2; }
  DEEPER_HD int steps() const { return taps() * CeilDiv(depth, kStepDepth); }
  DEEPER_HD int pixel_tiles() const { return CeilDiv(pixels(), kTilePixels); }
};

// ---- Tiles and steps ----------------------------------------------------------------------------------

struct Tile {
  int index, pixel, column;  // tile number among those of pixels; its first pixel and column
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
  int image, row, column;
};
DEEPER_HD inline Pixel PixelAt(const Gemm& g, int index) {
  return {index / (g.height * g.width), index / g.width % g.height, index % g.width};
}

struct Step {
  int row, column;  // of the tap: 0 to kernel - 1
  int weight_tap;   // position of the tap in w
  int depth;        // first channel of the step
  int slices;       // slices that contain channels: 1 to 4
};
DEEPER_HD inline Step StepAt(const Gemm& g, int index) {
  const int per_tap = CeilDiv(g.depth, kStepDepth), tap = index / per_tap;
  const int depth = index % per_tap * kStepDepth, left = g.depth - depth;
  return {tap / g.kernel, tap % g.kernel, g.backward ? g.taps() - 1 - tap : tap, depth,
          left < kStepDepth ? CeilDiv(left, kSliceDepth) : kStepDepth / kSliceDepth};
}

// The index of an element of w, [filter][tap][channel].
DEEPER_HD inline int64_t WeightIndex(const Gemm& g, int weight_tap, int column, int depth) {
  const int filter = g.backward ? depth : column, channel = g.backward ? column : depth;
  return (int64_t{filter} * g.taps() + weight_tap) * (g.backward ? g.columns : g.depth) + channel;
}

// ---- Shared memory ------------------------------------------------------------------------------------
// A stage holds the pixels of a step, [128 pixels][64 depth], then its weights: forward [columns][64 depth],
// backward a sequence of boxes of [64 depth][64 columns]. All consist of rows of 64 elements. The 16-byte
// chunks within a row are permuted so that equal chunks of 8 rows are in different banks. TMA and wgmma call
// this pattern a swizzle of 128 bytes; the stage must start at a multiple of 1024.

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
  return SourceAt(g, tile.pixel + CopyRow(thread, i));
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
// TMA moves the pixels of a step as one box of 128 pixels in the order of their index, across rows and
// images, and the weights as boxes of 64 rows. It writes zeros for what is outside.

// cuTensorMapEncodeIm2col: the corners of the pixels under a filter's first tap, relative to the corners of
// the image. The same for rows and columns.
DEEPER_HD inline int LowerCorner(const Gemm& g) {
  return -g.pad();
}
DEEPER_HD inline int UpperCorner(const Gemm& g) {
  return g.pad() - (g.kernel - 1);
}

// The position of the first tap of the tile's first pixel.
struct PixelBox {
  int channel, column, row, image;
};
DEEPER_HD inline PixelBox PixelBoxOf(const Gemm& g, const Tile& tile, const Step& step) {
  const Pixel first = PixelAt(g, tile.pixel);
  return {step.depth, first.column - g.pad(), first.row - g.pad(), first.image};
}

// The first element of box number `box`. Its destination is kPixelBytes + box * kBoxBytes.
struct WeightBox {
  int channel, tap, filter;
};
DEEPER_HD inline WeightBox WeightBoxOf(const Gemm& g, const Tile& tile, const Step& step, int box) {
  const int column = tile.column + box * kBoxRows;
  return g.backward ? WeightBox{column, step.weight_tap, step.depth}
                    : WeightBox{step.depth, step.weight_tap, column};
}

// ---- Operands of wgmma (sm_90) ------------------------------------------------------------------------

// PTX ISA, "Matrix descriptor format": addresses and offsets in units of 16 bytes. 1 in the two highest bits
// selects the swizzle of 128 bytes.
DEEPER_HD constexpr uint64_t Descriptor(uint32_t address, int leading_bytes, int stride_bytes) {
  return uint64_t{(address & 0x3FFFF) >> 4} | uint64_t(leading_bytes >> 4) << 16 |
         uint64_t(stride_bytes >> 4) << 32 | uint64_t{1} << 62;
}

// Depth is contiguous. The stride is the distance from 8 rows to the next 8; there is no leading offset. A
// slice is 32 bytes of each row.
DEEPER_HD constexpr uint64_t PixelDescriptor(uint32_t stage, int warpgroup, int slice) {
  return Descriptor(stage + warpgroup * 64 * kRowBytes + slice * kSliceDepth * 2, 16, kSwizzleBytes);
}
// Backward: columns are contiguous. The leading offset is the distance from 64 columns to the next 64, the
// stride that from 8 of depth to the next 8. A slice is 16 rows.
DEEPER_HD constexpr uint64_t WeightDescriptor(bool backward, uint32_t stage, int slice) {
  const uint32_t weights = stage + kPixelBytes;
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

// Masks and stores 8 columns of a pixel, packed in pairs, and adds the stored values to their sums.
template <bool kBackward>
DEEPER_HD void StoreChunk(const Gemm& g, const Epilogue& e, int pixel, int column, const uint32_t (&pairs)[4],
                          float (&sums)[kChunk]) {
  if (pixel >= g.pixels() || column >= g.columns) return;
  Chunk chunk;
  for (int j = 0; j < kChunk; ++j) chunk.v[j] = {static_cast<uint16_t>(pairs[j / 2] >> j % 2 * 16)};
  if (kBackward && e.mask != nullptr) {
    const Chunk mask = *reinterpret_cast<const Chunk*>(e.mask + pixel * g.mask_pitch + column);
    for (int j = 0; j < kChunk; ++j) {
      if (!(ToFloat(mask.v[j]) > 0)) chunk.v[j] = {0};
      sums[j] += ToFloat(chunk.v[j]);
    }
  }
  *reinterpret_cast<Chunk*>(e.out + pixel * g.out_pitch + column) = chunk;
}

}  // namespace deeper::conv
