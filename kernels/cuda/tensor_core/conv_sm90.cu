// Convolution on the tensor cores of compute capability 9.0: implicit GEMM by wgmma, with data copied by TMA.
// Memory layout: conv_tiling.h.
//
// A block has a tile of 128 places by up to 224 columns. Warps 0 to 7 form two warpgroups, each of which
// multiplies 64 places by all columns. One lane of warp 8 keeps their stages full. TMA's im2col mode reads
// the pixels across rows and images, and writes the zeros. No thread computes an address.
//
// kAcross is the number of taps of a step (Gemm::across). With a single tap, each tap reads a pixel again
// from the L2 cache. With a row of taps, each row does: a third or a fifth of the bytes.
//
//   taps, columns  | stages | shared memory | blocks on an SM | FLOPs per step |  bytes | FLOPs per byte
//     1,        64 |      4 |         99 KB |               2 |            1 M |  24 KB |             43
//     1,       128 |      3 |        101 KB |               2 |            2 M |  32 KB |             64
//     1,       192 |      5 |        207 KB |               1 |            3 M |  40 KB |             77
//     3,       128 |      3 |        200 KB |               1 |            6 M |  64 KB |             96
//     3,       192 |      2 |        185 KB |               1 |            9 M |  88 KB |            104
//     5, 32 forward|      2 |         76 KB |               2 |            3 M |  36 KB |             70
//     5, 32 back   |      3 |        173 KB |               1 |            3 M |  36 KB |             70
//
// The loops of the lane and of the warpgroups, and the barriers between them: conv_pipeline.h.
#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/base/kernel_launch.h"
#include "kernels/cuda/tensor_core/conv_epilogue.h"
#include "kernels/cuda/tensor_core/conv_kernels.h"
#include "kernels/cuda/tensor_core/conv_machines.h"
#include "kernels/cuda/tensor_core/conv_pipeline.h"
#include "kernels/cuda/tensor_core/conv_tensor_map.h"
#include "kernels/cuda/tensor_core/conv_wgmma.h"

namespace deeper::conv {
namespace {

struct Loader : BarrierMachine {
  const CUtensorMap &pixels, &weights;

  __device__ void LoadPixels(uint32_t to, const PixelBox& box, const Step& step, uint32_t barrier) const {
    conv::LoadPixels(to, pixels, box, step, barrier);
  }
  __device__ void LoadWeights(uint32_t to, const WeightBox& box, uint32_t barrier) const {
    conv::LoadWeights(to, weights, box, barrier);
  }
};

template <bool kBackward, int kColumns>
struct Multiplier : MultiplyMachine {
  float (&acc)[1][kColumns / 8][4];

  __device__ void Multiply(int, uint64_t a, uint64_t b) const { conv::Multiply<false, kBackward>(acc, a, b); }
};

template <bool kBackward, int kColumns, int kAcross>
__global__ void __launch_bounds__(kBlockThreads, Sm90Layout<kBackward, kColumns, kAcross>::kBlocks)
    ConvSm90(const Gemm g, const __grid_constant__ CUtensorMap pixels,
             const __grid_constant__ CUtensorMap weights, const Epilogue epilogue) {
  AwaitPreviousKernel();
  extern __shared__ unsigned char unaligned[];
  const auto start = static_cast<uint32_t>(__cvta_generic_to_shared(unaligned));
  const uint32_t base = (start + kSwizzleBytes - 1) / kSwizzleBytes * kSwizzleBytes;
  const Sm90Layout<kBackward, kColumns, kAcross> at = {base};
  float* const sums = reinterpret_cast<float*>(unaligned + (base - start) + at.kSums);
  const Tile tile = TileOf(g, kColumns, static_cast<int>(blockIdx.x));
  // The shuffle shows the compiler that a warp takes only one path. Otherwise it serializes wgmma.
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0);

  if (threadIdx.x == 0) {
    BarrierMachine machine;
    InitBarriers(at, machine);
  }
  __syncthreads();

  if (warp == kMultiplyWarps) {
    if (threadIdx.x % 32 == 0) {
      Prefetch(pixels);
      Prefetch(weights);
      Loader loader = {{}, pixels, weights};
      FillStages(g, tile, at, loader);
    }
    __syncwarp();
  } else {
    // Masks arrive while the first stages are filled.
    const auto rows = PixelsOf<kAcross, 1>(g, tile.place + warp * 16);
    Masks<1, kColumns / 8> masks = {};
    if constexpr (kBackward) LoadMasks(g, epilogue, rows, tile.column, masks);
    float acc[1][kColumns / 8][4] = {};
    Multiplier<kBackward, kColumns> multiplier = {{threadIdx.x % 32 == 0}, acc};
    MultiplyStages(g, at, warp / kWarpgroupWarps, multiplier);
#pragma unroll
    for (auto& block : acc[0]) Settle(block);
    StoreWarp<kBackward>(g, epilogue, rows, tile.column, acc, masks, sums + warp * kColumns);
  }
  __syncthreads();
  StoreSums<kMultiplyWarps, kColumns>(g, epilogue, tile, sums);
}

// ---- Launching ----------------------------------------------------------------------------------------

template <bool kBackward, int kColumns, int kAcross>
cudaError_t Launch(const Arguments& a, cudaStream_t stream) {
  constexpr int kSharedBytes = Sm90Layout<kBackward, kColumns, kAcross>::kSharedBytes;
  const auto kernel = ConvSm90<kBackward, kColumns, kAcross>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (allowed != cudaSuccess) return allowed;
  CUtensorMap pixels, weights;
  if (const cudaError_t error = Encode(PixelMap(a.gemm, a.in), &pixels); error != cudaSuccess) return error;
  if (const cudaError_t error = Encode(WeightMap(a.gemm, kColumns, a.weights), &weights);
      error != cudaSuccess)
    return error;
  return LaunchKernel(kernel, Blocks(a.gemm, kColumns), kBlockThreads, kSharedBytes, stream, a.gemm, pixels,
                      weights, a.epilogue);
}

template <int kAcross, bool kBackward>
cudaError_t LaunchTile(int tile_columns, const Arguments& arguments, cudaStream_t stream) {
  return WithTile(Sm90Tiles<kAcross, kBackward>(), tile_columns,
                  [&]<int kColumns>() { return Launch<kBackward, kColumns, kAcross>(arguments, stream); });
}

template <int kAcross>
cudaError_t LaunchTaps(int tile_columns, const Arguments& arguments, cudaStream_t stream) {
  return arguments.gemm.backward ? LaunchTile<kAcross, true>(tile_columns, arguments, stream)
                                 : LaunchTile<kAcross, false>(tile_columns, arguments, stream);
}

}  // namespace

cudaError_t LaunchSm90(int tile_columns, const Arguments& arguments, cudaStream_t stream) {
  switch (arguments.gemm.across) {
    case 1:
      return LaunchTaps<1>(tile_columns, arguments, stream);
    case 3:
      return LaunchTaps<3>(tile_columns, arguments, stream);
    case 5:
      return LaunchTaps<5>(tile_columns, arguments, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace deeper::conv
