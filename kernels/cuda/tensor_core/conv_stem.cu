// The first convolution of GoogLeNet with its ReLU and max pool, by mma.sync, for compute capability 8.0 and
// later. Memory layout and order of work: conv_stem_tiling.h.
//
// A block has 4 warps and two strips. A warp computes a row of 112 places by 32 filters per step, with a
// depth of 224: 392 products of 16x8x16, for 63 KB that ldmatrix reads. The weights stay in shared memory.
// cp.async copies the rows of the image two steps ahead, and writes the zeros of the padding.
#include <cstdint>

#include "kernels/cuda/base/kernel_launch.h"
#include "kernels/cuda/tensor_core/conv_epilogue.h"
#include "kernels/cuda/tensor_core/conv_mma.h"
#include "kernels/cuda/tensor_core/conv_pipeline.h"
#include "kernels/cuda/tensor_core/conv_stem.h"

namespace deeper::conv {
namespace {

constexpr int kBlocksOnSm = 2;
constexpr int kPairs = kWarpBlocks / 2;  // of blocks of columns

using Sums = float[kStripFragments][kWarpBlocks][4];

// acc += the products of a row of places. `slot`: of the row's first pixels in the ring.
__device__ inline void MultiplyRow(uint32_t ring, int slot, uint32_t filters, Sums& acc) {
#pragma unroll
  for (int row = 0; row < kStemKernel; ++row) {
    const uint32_t from = ring + (slot < kRingRows ? slot : slot - kRingRows) * kImageRowBytes;
    ++slot;
#pragma unroll
    for (int slice = 0; slice < kRowSlices; ++slice) {
      uint32_t b[kWarpBlocks / 2][4];
#pragma unroll
      for (int pair = 0; pair < kWarpBlocks / 2; ++pair)
        LoadMatrices<false>(filters + FilterSliceOffset(pair * 16, row * kRowSlices + slice), b[pair]);
#pragma unroll
      for (int fragment = 0; fragment < kStripFragments; ++fragment) {
        uint32_t a[4];
        LoadMatrices<false>(from + SliceOffset(fragment, slice), a);
#pragma unroll
        for (int block = 0; block < kWarpBlocks; ++block)
          Multiply(acc[fragment][block], a, b[block / 2][block % 2 * 2], b[block / 2][block % 2 * 2 + 1]);
      }
    }
  }
}

__global__ void __launch_bounds__(kStemThreads, kBlocksOnSm)
    ConvStemSm80(const Stem g, const bf16* x, const bf16* weights, const bf16* bias, const StemOutput out) {
  AwaitPreviousKernel();
  extern __shared__ __align__(16) unsigned char shared[];
  const auto base = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const int half = thread / 32 % kStripWarps, in_block = thread / (32 * kStripWarps);
  const Strip strip = StripOf(g, static_cast<int>(blockIdx.x) * kBlockStrips + in_block);
  const uint32_t ring = base + kStemWeightBytes + in_block * kRingBytes;
  const auto copy_row = [&](int row) {
    const uint32_t to = ring + row % kRingRows * kImageRowBytes;
    CopyImageRow(g, strip, row, lane, [&](int offset, int64_t from, bool inside) {
      CopyPixel(to + offset, inside ? x + from : x, inside);
    });
  };

  const int filter = half * kWarpFilters;
  float* const biases = reinterpret_cast<float*>(shared + kBiasOffset);
  const auto copy = [&](int group, int) {
    if (group > 0) {
      copy_row(FirstRowOfGroup(group) + half);
      return;
    }
    CopyFilters(thread, [&](int to, int from, bool inside) {
      CopyPixel(base + to, inside ? weights + from : weights, inside);
    });
    for (int row = half; row < kFirstRows; row += kStripWarps) copy_row(row);
    if (thread < kStemFilters) biases[thread] = ToFloat(bias[thread]);
  };

  const uint32_t pixels = ring + PlaceMatrixOffset(lane);
  const uint32_t filters = base + filter * kFilterBytes + FilterMatrixOffset(lane);
  Largest largest[kStripFragments][kPairs] = {};
  int slot = 0;
  const auto multiply = [&](int step, int) {
    Sums acc;
#pragma unroll
    for (int block = 0; block < kWarpBlocks; ++block) {
      const auto pair =
          *reinterpret_cast<const float2*>(biases + filter + block * 8 + FragmentColumn(lane, 0));
#pragma unroll
      for (int fragment = 0; fragment < kStripFragments; ++fragment) {
        acc[fragment][block][0] = acc[fragment][block][2] = pair.x;
        acc[fragment][block][1] = acc[fragment][block][3] = pair.y;
      }
    }
    MultiplyRow(pixels, slot, filters, acc);
    slot = slot + 2 < kRingRows ? slot + 2 : 0;

    const int place_row = strip.PlaceRow(step);
    const bool exists = place_row >= 0 && place_row < g.rows();
    const bool is_last = step % 2 == 0;  // row of a window, and the first row of the next one
    uint32_t before[kPairs][2];  // of lane l: the right places of the window before that of lane l % 4
#pragma unroll
    for (auto& pair : before) pair[0] = pair[1] = kOutsidePair;
#pragma unroll
    for (int fragment = 0; fragment < kStripFragments; ++fragment) {
      const int column = strip.column + fragment * 8 + FragmentRow(lane, 0);
      const bool right_exists = 2 * column + 1 < g.columns();
      uint32_t values[kWarpBlocks], places[kWarpBlocks];
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        uint32_t left[2], middle[2], right[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float* const sums = acc[fragment][pair * 2 + i];
          middle[i] = ActivatedPair(sums[0], sums[1]);
          right[i] = right_exists ? ActivatedPair(sums[2], sums[3]) : kOutsidePair;
          const uint32_t rotated = __shfl_sync(~0u, right[i], LaneBefore(lane));
          left[i] = lane < 4 ? before[pair][i] : rotated;
          before[pair][i] = rotated;
        }
        Largest of_row = LargestOfRow(left, middle, right);
        if (!exists) of_row.values[0] = of_row.values[1] = kOutsidePair;
        Largest& of_window = largest[fragment][pair];
        if (step > 0) TakeRow(of_window, of_row, is_last ? 2 : 1);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          values[pair * 2 + i] = of_window.values[i];
          places[pair * 2 + i] = PlacesOf(of_window, i);
        }
        if (is_last) of_window = of_row;
      }
      if (!is_last || step == 0) continue;
      TransposeQuad(values, lane);
      TransposeQuad(places, lane);
      StoreWindow(g, strip, strip.row + step / 2 - 1, column, filter + ChunkColumn(lane), values, places,
                  out);
    }
  };
  CopyMachine machine = {copy, multiply};
  CopyAndMultiply<kCopyStages>(g.steps(), machine);
}

}  // namespace

cudaError_t LaunchStemSm80(const StemArguments& a, cudaStream_t stream) {
  static const cudaError_t allowed =
      cudaFuncSetAttribute(ConvStemSm80, cudaFuncAttributeMaxDynamicSharedMemorySize, kStemSharedBytes);
  if (allowed != cudaSuccess) return allowed;
  return LaunchKernel(ConvStemSm80, a.stem.blocks(), kStemThreads, kStemSharedBytes, stream, a.stem, a.x,
                      a.weights, a.bias, a.out);
}

}  // namespace deeper::conv
