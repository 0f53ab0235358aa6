// The gradient of the weights of a 1x1 convolution that reads 3x3 maxima, by mma.sync, for compute capability
// 8.0 and later. Memory layout: conv_pool_tiling.h.
//
// A block has 8 warps and a tile of 64 or 128 filters by 64 channels. A warp computes a quarter of the
// filters by 32 channels. Three stages rotate in shared memory, as in conv_sm80.cu. cp.async copies dy; the
// maxima of x pass through registers.
#include <cstdint>

#include "kernels/cuda/base/kernel_launch.h"
#include "kernels/cuda/tensor_core/conv_kernels.h"
#include "kernels/cuda/tensor_core/conv_mma.h"
#include "kernels/cuda/tensor_core/conv_pipeline.h"
#include "kernels/cuda/tensor_core/conv_pool_tiling.h"

namespace deeper::conv {
namespace {

constexpr int kFilterWarps = 4, kChannelWarps = 2;
constexpr int kWarpChannels = kTileChannels / kChannelWarps;
constexpr int kChannelBlocks = kWarpChannels / 8;
static_assert(kCopyThreads == 32 * kFilterWarps * kChannelWarps);

constexpr int SharedBytes(int filters) {
  return kCopyStages * GradientStageBytes(filters);
}
static_assert(SharedBytes(128) <= 99 * 1024, "the smallest GPUs of the 8 series allow 99 KB per block");

// The part of a step that a warp computes.
template <int kFilters, int kFragments>
__device__ void MultiplyStep(uint32_t stage, int filter, int channel,
                             float (&acc)[kFragments][kChannelBlocks][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int slice = 0; slice < kStepPixels / kSliceDepth; ++slice) {
    uint32_t a[kFragments][4];
#pragma unroll
    for (int fragment = 0; fragment < kFragments; ++fragment) {
      LoadMatrices<true>(stage + FilterMatrixOffset(filter + fragment * 16, slice, lane), a[fragment]);
    }
#pragma unroll
    for (int block = 0; block < kChannelBlocks; block += 2) {
      uint32_t b[4];
      LoadMatrices<true>(stage + ChannelMatrixOffset<kFilters>(channel + block * 8, slice, lane), b);
#pragma unroll
      for (int fragment = 0; fragment < kFragments; ++fragment) {
        Multiply(acc[fragment][block], a[fragment], b[0], b[1]);
        Multiply(acc[fragment][block + 1], a[fragment], b[2], b[3]);
      }
    }
  }
}

// Four lanes write 8 neighbouring channels: 32 bytes.
template <int kFragments>
__device__ void StorePartial(const Gemm& g, int split, int filter, int channel,
                             const float (&acc)[kFragments][kChannelBlocks][4], float* partial) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int fragment = 0; fragment < kFragments; ++fragment) {
#pragma unroll
    for (int block = 0; block < kChannelBlocks; ++block) {
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
        const int k = filter + fragment * 16 + FragmentRow(lane, i);
        const int c = channel + block * 8 + FragmentColumn(lane, i);
        if (k >= g.columns || c >= g.depth) continue;
        const float* const values = acc[fragment][block] + i;
        *reinterpret_cast<float2*>(partial + PartialIndex(g, split, k, c)) = {values[0], values[1]};
      }
    }
  }
}

template <int kFilters, bool kPairs>
__global__ void __launch_bounds__(kCopyThreads, 2)
    PooledGradientSm80(const Gemm g, const bf16* x, const bf16* dy, float* partial) {
  AwaitPreviousKernel();
  extern __shared__ __align__(kSwizzleBytes) unsigned char shared[];
  const auto base = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  const GradientTile tile = GradientTileOf(g, kFilters, static_cast<int>(blockIdx.x));

  const auto copy = [&](int step, int index) {
    const int stage = index * GradientStageBytes(kFilters);
    CopyGradients<kFilters>(g, tile, step, thread, [&](int to, int64_t from, bool inside) {
      CopyAsync(base + stage + to, inside ? dy + from : dy, inside);
    });
    PoolChannels<kFilters, kPairs>(g, tile, x, step, thread, [&](int to, const Octet& chunk) {
      *reinterpret_cast<Octet*>(shared + stage + to) = chunk;
    });
  };

  constexpr int kWarpFilters = kFilters / kFilterWarps, kFragments = kWarpFilters / 16;
  const int filter = warp % kFilterWarps * kWarpFilters, channel = warp / kFilterWarps * kWarpChannels;
  float acc[kFragments][kChannelBlocks][4] = {};
  const auto multiply = [&](int, int index) {
    MultiplyStep<kFilters>(base + index * GradientStageBytes(kFilters), filter, channel, acc);
  };
  CopyMachine machine = {copy, multiply};
  CopyAndMultiply<kCopyStages>(tile.steps, machine);
  StorePartial(g, tile.split, tile.filter + filter, tile.channel + channel, acc, partial);
}

template <int kFilters, bool kPairs>
cudaError_t Launch(const PooledGradientArguments& a, cudaStream_t stream) {
  const auto kernel = PooledGradientSm80<kFilters, kPairs>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, SharedBytes(kFilters));
  if (allowed != cudaSuccess) return allowed;
  const GradientTiles tiles = GradientTilesOf(a.gemm, kFilters);
  const cudaError_t error = LaunchKernel(kernel, tiles.count() * tiles.splits, kCopyThreads,
                                         SharedBytes(kFilters), stream, a.gemm, a.x, a.dy, a.partial);
  if (error != cudaSuccess) return error;
  return LaunchSplitSums(a.partial, tiles.splits, a.gemm.columns * a.gemm.depth, a.dw, stream);
}

}  // namespace

cudaError_t LaunchPooledGradientSm80(int tile_filters, const PooledGradientArguments& arguments,
                                     cudaStream_t stream) {
  return WithTile(Sizes<64, 128>(), tile_filters, [&]<int kFilters>() {
    if constexpr (kFilters == 64) {
      if (ArePairs(arguments.gemm, kFilters)) return Launch<kFilters, true>(arguments, stream);
    }
    return Launch<kFilters, false>(arguments, stream);
  });
}

}  // namespace deeper::conv
