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

// The values of a warp: kFragments times 16 pixels from `pixel`, by kBlocks times 8 columns from `column`.
// `sums` is in shared memory and receives the warp's sums of its columns, if there is a mask. Only the fields
// of Epilogue for this direction are used.
template <bool kBackward, int kFragments, int kBlocks>
__device__ void StoreWarp(const Gemm& g, const Epilogue& e, int pixel, int column,
                          const float (&acc)[kFragments][kBlocks][4], float* sums) {
  constexpr int kGroupBlocks = kGroupColumns / 8;
  static_assert(kBlocks % kGroupBlocks == 0);
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int group = 0; group < kBlocks / kGroupBlocks; ++group) {
    const int first = column + group * kGroupColumns;
    float own[kChunk] = {};
    Bias bias[kGroupBlocks] = {};
#pragma unroll
    for (int block = 0; block < kGroupBlocks; ++block) {
      if (!kBackward) bias[block] = BiasOf(g, e, first + block * 8 + FragmentColumn(lane, 0));
    }
#pragma unroll
    for (int fragment = 0; fragment < kFragments; ++fragment) {
#pragma unroll
      for (int i = 0; i < 4; i += 2) {  // FragmentRow: the upper 8 rows, then the lower
        uint32_t pairs[4];
#pragma unroll
        for (int block = 0; block < kGroupBlocks; ++block) {
          const float* const values = acc[fragment][group * kGroupBlocks + block] + i;
          pairs[block] = kBackward ? PackPair(values[0], values[1])
                                   : PackPair(Activated(e, values[0] + bias[block].low),
                                              Activated(e, values[1] + bias[block].high));
        }
        TransposeQuad(pairs, lane);
        StoreChunk<kBackward>(g, e, pixel + fragment * 16 + FragmentRow(lane, i), first + ChunkColumn(lane),
                              pairs, own);
      }
    }
    if (!kBackward || e.mask == nullptr) continue;
    AddRows(own);
    if (lane >= 4) continue;
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
