// Stores accumulators from registers to pixels in memory, for both tensor core kernels. For .cu files only.
#pragma once

#include <cstdint>

#include "kernels/cuda/tensor_core/conv_tiling.h"

namespace deeper::conv {

// Two numbers as bf16, `low` in the lower half. PTX ISA, "cvt".
__device__ inline uint32_t PackPair(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

__device__ inline void TransposeQuad(uint32_t (&v)[4], int lane) {
#pragma unroll
  for (int distance = 1; distance <= 2; distance *= 2) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((i & distance) != 0) continue;
      const uint32_t value = __shfl_xor_sync(~0u, Outgoing(v, lane, distance, i), distance);
      Incoming(v, lane, distance, i, value);
    }
  }
}

// Adds the values that lanes hold for the same columns: 8 lanes, every fourth one. The order is the same for
// every lane.
__device__ inline void AddRows(float (&sums)[kChunk]) {
#pragma unroll
  for (int distance = 4; distance < 32; distance *= 2) {
#pragma unroll
    for (float& sum : sums) sum += __shfl_xor_sync(~0u, sum, distance);
  }
}

// The pixels of the rows that a lane holds (FragmentRow), in each of kFragments times 16 rows of the product
// from `place`. -1: none.
template <int kFragments>
struct Pixels {
  int v[kFragments][2];
};
template <int kAcross, int kFragments>
__device__ Pixels<kFragments> PixelsOf(const Gemm& g, int place) {
  Pixels<kFragments> pixels;
#pragma unroll
  for (int fragment = 0; fragment < kFragments; ++fragment) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = fragment * 16 + FragmentRow(static_cast<int>(threadIdx.x) % 32, half * 2);
      pixels.v[fragment][half] = PixelIndex<kAcross>(g, place + row);
    }
  }
  return pixels;
}

constexpr int kGroupBlocks = kGroupColumns / 8;

DEEPER_HD constexpr int ChunkNumber(int group, int fragment, int half, int fragments) {
  return (group * fragments + fragment) * 2 + half;
}

// The masks of all chunks that a lane stores, as bits (MaskBits): all are loaded together.
template <int kFragments, int kBlocks>
struct Masks {
  static constexpr int kChunks = CeilDiv(kBlocks, kGroupBlocks) * kFragments * 2;
  uint32_t words[CeilDiv(kChunks, kWordChunks)];
};
template <int kFragments, int kBlocks>
__device__ void LoadMasks(const Gemm& g, const Epilogue& e, const Pixels<kFragments>& pixels, int column,
                          Masks<kFragments, kBlocks>& masks) {
  const int first = column + ChunkColumn(static_cast<int>(threadIdx.x) % 32);
#pragma unroll
  for (int group = 0; group < CeilDiv(kBlocks, kGroupBlocks); ++group) {
#pragma unroll
    for (int fragment = 0; fragment < kFragments; ++fragment) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int chunk = ChunkNumber(group, fragment, half, kFragments);
        masks.words[chunk / kWordChunks] |=
            MaskBits(g, e, pixels.v[fragment][half], first + group * kGroupColumns, chunk);
      }
    }
  }
}

// Stores the values of a warp: kFragments times 16 rows, by kBlocks times 8 columns from `column`. `sums` is
// in shared memory and receives the warp's sums of its columns, if there is a mask. Only the fields of
// Epilogue for this direction are used.
template <bool kBackward, int kFragments, int kBlocks>
__device__ void StoreWarp(const Gemm& g, const Epilogue& e, const Pixels<kFragments>& pixels, int column,
                          const float (&acc)[kFragments][kBlocks][4], const Masks<kFragments, kBlocks>& masks,
                          float* sums) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int group = 0; group < CeilDiv(kBlocks, kGroupBlocks); ++group) {
    const int first = column + group * kGroupColumns;
    const bool exists =
        group * kGroupColumns + ChunkColumn(lane) < kBlocks * 8;  // the last group may be less
    float own[kChunk] = {};
    Bias bias[kGroupBlocks] = {};
#pragma unroll
    for (int block = 0; block < kGroupBlocks; ++block) {
      if (kBackward || group * kGroupBlocks + block >= kBlocks) continue;
      bias[block] = BiasOf(g, e, first + block * 8 + FragmentColumn(lane, 0));
    }
#pragma unroll
    for (int fragment = 0; fragment < kFragments; ++fragment) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {  // FragmentRow: the upper 8 rows, then the lower
        uint32_t pairs[4] = {};
#pragma unroll
        for (int block = 0; block < kGroupBlocks; ++block) {
          if (group * kGroupBlocks + block >= kBlocks) continue;
          const float* const values = acc[fragment][group * kGroupBlocks + block] + half * 2;
          pairs[block] = kBackward ? PackPair(values[0], values[1])
                                   : PackPair(Activated(e, values[0] + bias[block].low),
                                              Activated(e, values[1] + bias[block].high));
        }
        TransposeQuad(pairs, lane);
        if (!exists) continue;
        const int chunk = ChunkNumber(group, fragment, half, kFragments);
        StoreChunk<kBackward>(g, e, pixels.v[fragment][half], first + ChunkColumn(lane), pairs,
                              masks.words[chunk / kWordChunks], chunk, own);
      }
    }
    if (!kBackward || e.mask == nullptr) continue;
    AddRows(own);
    if (lane >= 4 || !exists) continue;
#pragma unroll
    for (int j = 0; j < kChunk; ++j) sums[group * kGroupColumns + ChunkColumn(lane) + j] = own[j];
  }
}

// Adds the warps' sums, [warps][kColumns], from the top of the tile to its bottom. For the first threads of a
// block, after a barrier.
template <int kWarps, int kColumns>
__device__ void StoreSums(const Gemm& g, const Epilogue& e, const Tile& tile, const float* sums) {
  const int column = static_cast<int>(threadIdx.x);
  if (e.mask == nullptr || column >= kColumns || tile.column + column >= g.columns) return;
  float sum = 0;
  for (int warp = 0; warp < kWarps; ++warp) sum += sums[warp * kColumns + column];
  e.sums[SumIndex(g, tile, column)] = sum;
}

}  // namespace deeper::conv
