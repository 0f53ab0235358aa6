// The gradient of the weights of a 3x3 convolution on the tensor cores of compute capability 9.0, by wgmma,
// with data copied by TMA. Memory layout: conv_dw_tiling.h.
//
// A block has a tile of 64 filters by three taps by up to 128 channels. Warps 0 to 7 form two warpgroups,
// each of which multiplies half of the places of a step, and has sums of the whole tile. At the end, the
// second one hands its sums to the first one through shared memory. One lane of a third warpgroup keeps their
// stages full. This warpgroup returns most of its registers, which the sums of the others need: up to 192 per
// thread.
//
//   channels | stages | shared memory | FLOPs per step | bytes | FLOPs per byte
//         64 |      5 |        166 KB |            3 M | 32 KB |             95
//         72 |      4 |        201 KB |            4 M | 49 KB |             71
//        128 |      4 |        201 KB |            6 M | 49 KB |            127
//
// The loops of the lane and of the warpgroups, and the barriers between them: conv_pipeline.h.
#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/base/kernel_launch.h"
#include "kernels/cuda/tensor_core/conv_dw_tiling.h"
#include "kernels/cuda/tensor_core/conv_kernels.h"
#include "kernels/cuda/tensor_core/conv_machines.h"
#include "kernels/cuda/tensor_core/conv_pipeline.h"
#include "kernels/cuda/tensor_core/conv_tensor_map.h"
#include "kernels/cuda/tensor_core/conv_wgmma.h"

namespace deeper::conv {
namespace {

// A block of 384 threads starts with 168 registers per thread.
constexpr int kDwThreads = kMultiplyThreads + 128;
constexpr int kFillRegisters = 24, kMultiplyRegisters = 240;
static_assert(kFillRegisters + 2 * kMultiplyRegisters == 3 * 168);

template <int kChannels>
using Sums = float[kDwTaps][1][kChannels / 8][4];

struct Loader : BarrierMachine {
  const CUtensorMap &x, &dy;

  __device__ void LoadPixels(uint32_t to, const PixelBox& box, const Step& step, uint32_t barrier) const {
    conv::LoadPixels(to, x, box, step, barrier);
  }
  __device__ void LoadGradients(uint32_t to, const PixelBox& box, uint32_t barrier) const {
    conv::LoadPixels(to, dy, box, {}, barrier);
  }
};

template <int kChannels>
struct Multiplier : MultiplyMachine {
  Sums<kChannels>& acc;

  __device__ void Multiply(int tap, uint64_t a, uint64_t b) const {
    conv::Multiply<true, true>(acc[tap], a, b);
  }
};

// Adds the sums of the second warpgroup to those of the first one. Thread t of both has the same elements.
template <int kChannels>
__device__ void AddWarpgroups(int warpgroup, float4* exchanged, Sums<kChannels>& acc) {
  constexpr int kThreads = kMultiplyThreads / kWarpgroups;
  float4* const own = exchanged + threadIdx.x % kThreads;
  SynchronizeWarpgroups<kMultiplyThreads>();  // both have read all stages
#pragma unroll
  for (int i = 0; i < kDwTaps * kChannels / 8; ++i) {
    const float(&v)[4] = acc[i / (kChannels / 8)][0][i % (kChannels / 8)];
    if (warpgroup == 1) own[i * kThreads] = {v[0], v[1], v[2], v[3]};
  }
  SynchronizeWarpgroups<kMultiplyThreads>();
  if (warpgroup == 1) return;
#pragma unroll
  for (int i = 0; i < kDwTaps * kChannels / 8; ++i) {
    float(&v)[4] = acc[i / (kChannels / 8)][0][i % (kChannels / 8)];
    const float4 other = own[i * kThreads];
    v[0] += other.x, v[1] += other.y, v[2] += other.z, v[3] += other.w;
  }
}

template <int kChannels>
__global__ void __launch_bounds__(kDwThreads, 1)
    WeightGradientSm90(const Gemm g, const DwTiles tiles, const __grid_constant__ CUtensorMap x,
                       const __grid_constant__ CUtensorMap dy, float* partial) {
  AwaitPreviousKernel();
  extern __shared__ unsigned char unaligned[];
  const auto start = static_cast<uint32_t>(__cvta_generic_to_shared(unaligned));
  const uint32_t base = (start + kSwizzleBytes - 1) / kSwizzleBytes * kSwizzleBytes;
  const DwLayout<kChannels> at = {base};
  const DwTile tile = DwTileOf(g, tiles, kChannels, static_cast<int>(blockIdx.x));
  // The shuffle shows the compiler that a warp takes only one path. Otherwise it serializes wgmma.
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0);

  if (threadIdx.x == 0) {
    BarrierMachine machine;
    InitBarriers(at, machine);
  }
  __syncthreads();

  if (warp >= kMultiplyWarps) {
    ReturnRegisters<kFillRegisters>();
    if (threadIdx.x == kMultiplyThreads) {
      Prefetch(x);
      Prefetch(dy);
      Loader loader = {{}, x, dy};
      FillDwStages(g, tile, at, loader);
    }
    return;
  }
  TakeRegisters<kMultiplyRegisters>();
  const int warpgroup = warp / kWarpgroupWarps;
  Sums<kChannels> acc = {};
  Multiplier<kChannels> multiplier = {{threadIdx.x % 32 == 0}, acc};
  MultiplyDwStages(tile, at, warpgroup, multiplier);
#pragma unroll
  for (auto& tap : acc) {
#pragma unroll
    for (auto& block : tap[0]) Settle(block);
  }
  AddWarpgroups<kChannels>(warpgroup, reinterpret_cast<float4*>(unaligned + (base - start)), acc);
  if (warpgroup == 1) return;
  StorePartial<kChannels>(g, tile, warp, threadIdx.x % 32, [&](int64_t index, int tap, int block, int i) {
    const float* const values = acc[tap][0][block] + i;
    *reinterpret_cast<float2*>(partial + index) = {values[0], values[1]};
  });
}

template <int kChannels>
cudaError_t Launch(const WeightGradientArguments& a, cudaStream_t stream) {
  constexpr int kSharedBytes = DwLayout<kChannels>::kSharedBytes;
  const auto kernel = WeightGradientSm90<kChannels>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (allowed != cudaSuccess) return allowed;
  CUtensorMap x, dy;
  if (const cudaError_t error = Encode(PixelMap(a.gemm, a.x), &x); error != cudaSuccess) return error;
  if (const cudaError_t error = Encode(GradientMap(a.gemm, a.dy), &dy); error != cudaSuccess) return error;
  const DwTiles tiles = DwTilesOf(a.gemm, kChannels);
  const cudaError_t error =
      LaunchKernel(kernel, tiles.blocks(), kDwThreads, kSharedBytes, stream, a.gemm, tiles, x, dy, a.partial);
  if (error != cudaSuccess) return error;
  return LaunchSplitSums(a.partial, tiles.splits, a.gemm.columns * a.gemm.taps() * a.gemm.depth, a.dw,
                         stream);
}

}  // namespace

cudaError_t LaunchWeightGradientSm90(int tile_channels, const WeightGradientArguments& arguments,
                                     cudaStream_t stream) {
  return WithTile(DwChannels(), tile_channels,
                  [&]<int kChannels>() { return Launch<kChannels>(arguments, stream); });
}

}  // namespace deeper::conv
