// Convolution on the tensor cores of compute capability 8.0 and later: implicit GEMM by mma.sync, with data
// copied by cp.async. Memory layout: conv_tiling.h.
//
// A block has 8 warps and a tile of 128 pixels by 64 or 128 columns. A warp computes 32 pixels by half of the
// columns. Three stages rotate in shared memory: two load while one is multiplied. cp.async writes the zeros
// for padding and for data outside the tensors.
//
//   columns of a tile | shared memory | FLOPs per step | bytes per step | FLOPs per byte
//                  64 |         73 KB |            1 M |          24 KB |             43
//                 128 |         98 KB |            2 M |          32 KB |             64
// Nearly all these bytes come from the L2 cache: each tap reads a pixel again, and each tile reads w again.
#include <cstdint>

#include "kernels/cuda/base/kernel_launch.h"
#include "kernels/cuda/tensor_core/conv_epilogue.h"
#include "kernels/cuda/tensor_core/conv_kernels.h"
#include "kernels/cuda/tensor_core/conv_mma.h"
#include "kernels/cuda/tensor_core/conv_pipeline.h"
#include "kernels/cuda/tensor_core/conv_pool_tiling.h"

namespace deeper::conv {
namespace {

constexpr int kRowWarps = 4, kColumnWarps = 2;
constexpr int kFragments = kTilePixels / kRowWarps / 16;  // of 16 pixels, per warp
static_assert(kCopyThreads == 32 * kRowWarps * kColumnWarps);

constexpr int SharedBytes(int columns) {
  return kCopyStages * StageBytes(columns) + kRowWarps * columns * static_cast<int>(sizeof(float));
}
// An A100 has 164 KB per SM.
constexpr int BlocksOnSm(int columns) {
  return columns == 64 ? 2 : 1;
}
static_assert(SharedBytes(128) <= 99 * 1024, "the smallest GPUs of the 8 series allow 99 KB per block");

// The part of a step that a warp computes.
template <bool kBackward, int kBlocks>
__device__ void MultiplyStep(uint32_t stage, int slices, int row, int column,
                             float (&acc)[kFragments][kBlocks][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int slice = 0; slice < kStepDepth / kSliceDepth; ++slice) {
    if (slice >= slices) break;
    uint32_t a[kFragments][4];
#pragma unroll
    for (int fragment = 0; fragment < kFragments; ++fragment) {
      LoadMatrices<false>(stage + PixelMatrixOffset(row + fragment * 16, slice, lane), a[fragment]);
    }
#pragma unroll
    for (int block = 0; block < kBlocks; block += 2) {
      uint32_t b[4];
      LoadMatrices<kBackward>(stage + WeightMatrixOffset(kBackward, column + block * 8, slice, lane), b);
#pragma unroll
      for (int fragment = 0; fragment < kFragments; ++fragment) {
        Multiply(acc[fragment][block], a[fragment], b[0], b[1]);
        Multiply(acc[fragment][block + 1], a[fragment], b[2], b[3]);
      }
    }
  }
}

// The source of the pixels.
enum class Input { kForward, kBackward, kPooled };

template <Input kInput, int kColumns>
__global__ void __launch_bounds__(kCopyThreads, BlocksOnSm(kColumns))
    ConvSm80(const Gemm g, const bf16* in, const bf16* weights, const Epilogue epilogue, uint8_t* positions) {
  AwaitPreviousKernel();
  constexpr bool kBackward = kInput == Input::kBackward;
  extern __shared__ __align__(kSwizzleBytes) unsigned char shared[];
  const auto base = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  const Tile tile = TileOf(g, kColumns, static_cast<int>(blockIdx.x));
  Source sources[kPixelCopies];
#pragma unroll
  for (int i = 0; i < kPixelCopies; ++i) sources[i] = SourceOf(g, tile, thread, i);

  Step copied = FirstStep(g), multiplied = copied;  // the next ones
  const auto copy = [&](int, int index) {
    const Step step = copied;
    Advance(g, copied);
    const uint32_t stage = base + index * StageBytes(kColumns);
    if constexpr (kInput == Input::kPooled) {
      // Of the blocks that read the same pixels, only one writes the positions.
      PoolPixels(g, sources, in, step, thread, tile.column == 0 ? positions : nullptr,
                 [&](int to, const Octet& chunk) {
                   *reinterpret_cast<Octet*>(shared + (stage - base) + to) = chunk;
                 });
    } else {
      CopyPixels(g, sources, step, thread, [&](int to, int64_t from, bool inside) {
        CopyAsync(stage + to, inside ? in + from : in, inside);
      });
    }
    CopyWeights<kColumns>(g, tile, step, thread, [&](int to, int64_t from, bool inside) {
      CopyAsync(stage + to, inside ? weights + from : weights, inside);
    });
  };

  constexpr int kWarpColumns = kColumns / kColumnWarps;
  const int row = warp % kRowWarps * kFragments * 16, column = warp / kRowWarps * kWarpColumns;
  float acc[kFragments][kWarpColumns / 8][4] = {};
  const auto multiply = [&](int, int index) {
    MultiplyStep<kBackward>(base + index * StageBytes(kColumns), multiplied.slices, row, column, acc);
    Advance(g, multiplied);
  };
  CopyMachine machine = {copy, multiply};
  CopyAndMultiply<kCopyStages>(g.steps(), machine);

  float* const sums = reinterpret_cast<float*>(shared + kCopyStages * StageBytes(kColumns));
  const auto pixels = PixelsOf<1, kFragments>(g, tile.place + row);
  Masks<kFragments, kWarpColumns / 8> masks = {};
  if constexpr (kBackward) LoadMasks(g, epilogue, pixels, tile.column + column, masks);
  StoreWarp<kBackward>(g, epilogue, pixels, tile.column + column, acc, masks,
                       sums + warp % kRowWarps * kColumns + column);
  __syncthreads();
  StoreSums<kRowWarps, kColumns>(g, epilogue, tile, sums);
}

template <Input kInput, int kColumns>
cudaError_t Launch(const Arguments& a, cudaStream_t stream) {
  static const cudaError_t allowed = cudaFuncSetAttribute(
      ConvSm80<kInput, kColumns>, cudaFuncAttributeMaxDynamicSharedMemorySize, SharedBytes(kColumns));
  if (allowed != cudaSuccess) return allowed;
  return LaunchKernel(ConvSm80<kInput, kColumns>, Blocks(a.gemm, kColumns), kCopyThreads,
                      SharedBytes(kColumns), stream, a.gemm, a.in, a.weights, a.epilogue, a.positions);
}

template <Input kInput>
cudaError_t LaunchTile(int tile_columns, const Arguments& arguments, cudaStream_t stream) {
  return WithTile(Sizes<64, 128>(), tile_columns,
                  [&]<int kColumns>() { return Launch<kInput, kColumns>(arguments, stream); });
}

}  // namespace

cudaError_t LaunchSm80(int tile_columns, const Arguments& arguments, cudaStream_t stream) {
  return arguments.gemm.backward ? LaunchTile<Input::kBackward>(tile_columns, arguments, stream)
                                 : LaunchTile<Input::kForward>(tile_columns, arguments, stream);
}

cudaError_t LaunchPooledSm80(int tile_columns, const Arguments& arguments, cudaStream_t stream) {
  return LaunchTile<Input::kPooled>(tile_columns, arguments, stream);
}

}  // namespace deeper::conv
