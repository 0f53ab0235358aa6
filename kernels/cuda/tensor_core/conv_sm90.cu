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
// Each stage has two barriers. `full` completes when all its bytes have arrived, `empty` when the 8 warps
// have read them. Round r of the stages waits for phase r of `full` and, to fill, for phase r - 1 of `empty`.
// A wait identifies its phase by the lowest bit.
#include <cuda.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/base/kernel_launch.h"
#include "kernels/cuda/tensor_core/conv_epilogue.h"
#include "kernels/cuda/tensor_core/conv_kernels.h"
#include "kernels/cuda/tensor_core/conv_wgmma.h"

namespace deeper::conv {
namespace {

constexpr int kWarpgroups = 2, kWarpgroupThreads = 128;
constexpr int kMultiplyThreads = kWarpgroups * kWarpgroupThreads;
constexpr int kBlockThreads = kMultiplyThreads + 32;
constexpr int kRowWarps = kMultiplyThreads / 32;
static_assert(kTilePixels == kWarpgroups * 64);

// The layout of shared memory: stages, their barriers, the sums of the warps.
template <bool kBackward, int kColumns, int kAcross>
struct Layout {
  static constexpr int kStageBytes = StepPixelBytes(kAcross) + kAcross * TapBytes(kBackward, kColumns);
  static constexpr int kBarrierBytes = 2 * int{sizeof(uint64_t)};  // of a stage
  static constexpr int kSumBytes = kRowWarps * kColumns * int{sizeof(float)};
  // An SM has 228 KB, and each block uses 1 KB in addition. The stages start at a multiple of kSwizzleBytes.
  static constexpr int StagesFor(int blocks) {
    return (228 * 1024 / blocks - 1024 - kSwizzleBytes - kSumBytes) / (kStageBytes + kBarrierBytes);
  }
  // Two blocks on an SM, if the copies of a stage still overlap with the products of another.
  static constexpr int kBlocks = kColumns <= 128 && StagesFor(2) >= (kAcross == 1 ? 3 : 2) ? 2 : 1;
  static constexpr int kStages = std::min(5, StagesFor(kBlocks));
  static constexpr int kSums = kStages * (kStageBytes + kBarrierBytes);  // from base
  static constexpr int kSharedBytes = kSums + kSumBytes + kSwizzleBytes;
  static_assert(kStages >= 2 && kStageBytes % kSwizzleBytes == 0);

  uint32_t base;

  __device__ uint32_t Stage(int stage) const { return base + stage * kStageBytes; }
  __device__ uint32_t Full(int stage) const {
    return base + kStages * kStageBytes + stage * int{sizeof(uint64_t)};
  }
  __device__ uint32_t Empty(int stage) const { return Full(stage) + kStages * int{sizeof(uint64_t)}; }
};

// The stage of a step, and the parity of its round.
template <int kStages>
struct Turn {
  int stage = 0, parity = 0;

  __device__ void Advance() {
    if (++stage < kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

// The work of the lane that loads.
template <bool kBackward, int kColumns, int kAcross>
__device__ void FillStages(const Gemm& g, const Tile& tile, const Layout<kBackward, kColumns, kAcross>& at,
                           const CUtensorMap& pixels, const CUtensorMap& weights) {
  constexpr int kBoxes = kBackward ? CeilDiv(kColumns, kBoxRows) : 1;
  constexpr int kBytes = StepPixels(kAcross) * kRowBytes + kAcross * TapBytes(kBackward, kColumns);
  Prefetch(pixels);
  Prefetch(weights);
  PixelBox box = PixelBoxOf(g, tile);
  Step step = FirstStep(g);
  Turn<at.kStages> turn;
  for (int left = g.steps(); left > 0; --left) {
    // The first round has no earlier phase: a new barrier does not block a wait for parity 1.
    Wait(at.Empty(turn.stage), 1 - turn.parity);
    const uint32_t full = at.Full(turn.stage), stage = at.Stage(turn.stage);
    ArriveAndExpect(full, kBytes);  // zeros count as bytes, too
    box.channel = step.depth;
    LoadPixels(stage, pixels, box, step, full);
#pragma unroll
    for (int tap = 0; tap < kAcross; ++tap) {
#pragma unroll
      for (int i = 0; i < kBoxes; ++i) {
        LoadWeights(stage + WeightBoxOffset(kBackward, kAcross, kColumns, tap, i), weights,
                    WeightBoxOf(g, tile, step, tap, i), full);
      }
    }
    Advance(g, step);
    turn.Advance();
  }
}

// Starts a warpgroup's products without waiting for them.
template <int kSlices, bool kBackward, int kColumns, int kAcross>
__device__ void MultiplyStep(uint32_t stage, int warpgroup, float (&acc)[1][kColumns / 8][4]) {
  BeginMultiply();
#pragma unroll
  for (int tap = 0; tap < kAcross; ++tap) {
    const uint32_t weights = stage + WeightBoxOffset(kBackward, kAcross, kColumns, tap, 0);
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) {
      Multiply<kBackward>(acc, PixelDescriptor(stage, warpgroup, tap, slice),
                          WeightDescriptor(kBackward, weights, slice));
    }
  }
  CommitMultiply();
}

// The work of a warpgroup, up to the last products, which may still run. Those of a step run while it waits
// for the next step.
template <bool kBackward, int kColumns, int kAcross>
__device__ void MultiplyStages(const Gemm& g, const Layout<kBackward, kColumns, kAcross>& at, int warpgroup,
                               float (&acc)[1][kColumns / 8][4]) {
  const bool leader = threadIdx.x % 32 == 0;
  Step step = FirstStep(g);
  Turn<at.kStages> turn;
  int previous = -1;
  for (int left = g.steps(); left > 0; --left) {
    Wait(at.Full(turn.stage), turn.parity);
    const uint32_t stage = at.Stage(turn.stage);
    switch (step.slices) {  // ptxas would insert fences at a branch between two wgmma
      case 1:
        MultiplyStep<1, kBackward, kColumns, kAcross>(stage, warpgroup, acc);
        break;
      case 2:
        MultiplyStep<2, kBackward, kColumns, kAcross>(stage, warpgroup, acc);
        break;
      case 3:
        MultiplyStep<3, kBackward, kColumns, kAcross>(stage, warpgroup, acc);
        break;
      default:
        MultiplyStep<4, kBackward, kColumns, kAcross>(stage, warpgroup, acc);
        break;
    }
    WaitForMultiply<1>();
    if (leader && previous >= 0) Arrive(at.Empty(previous));
    previous = turn.stage;
    Advance(g, step);
    turn.Advance();
  }
}

template <bool kBackward, int kColumns, int kAcross>
__global__ void __launch_bounds__(kBlockThreads, Layout<kBackward, kColumns, kAcross>::kBlocks)
    ConvSm90(const Gemm g, const __grid_constant__ CUtensorMap pixels,
             const __grid_constant__ CUtensorMap weights, const Epilogue epilogue) {
  AwaitPreviousKernel();
  extern __shared__ unsigned char unaligned[];
  const auto start = static_cast<uint32_t>(__cvta_generic_to_shared(unaligned));
  const uint32_t base = (start + kSwizzleBytes - 1) / kSwizzleBytes * kSwizzleBytes;
  const Layout<kBackward, kColumns, kAcross> at = {base};
  float* const sums = reinterpret_cast<float*>(unaligned + (base - start) + at.kSums);
  const Tile tile = TileOf(g, kColumns, static_cast<int>(blockIdx.x));
  // The shuffle shows the compiler that a warp takes only one path. Otherwise it serializes wgmma.
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0);

  if (threadIdx.x == 0) {
    for (int stage = 0; stage < at.kStages; ++stage) {
      InitBarrier(at.Full(stage), 1);
      InitBarrier(at.Empty(stage), kRowWarps);
    }
    PublishBarriers();
  }
  __syncthreads();

  if (warp == kRowWarps) {
    if (threadIdx.x % 32 == 0) FillStages(g, tile, at, pixels, weights);
    __syncwarp();
  } else {
    // Masks arrive while the first stages are filled.
    const auto rows = PixelsOf<kAcross, 1>(g, tile.place + warp * 16);
    Masks<1, kColumns / 8> masks = {};
    if constexpr (kBackward) LoadMasks(g, epilogue, rows, tile.column, masks);
    float acc[1][kColumns / 8][4] = {};
    MultiplyStages(g, at, warp / 4, acc);
    WaitForMultiply<0>();
#pragma unroll
    for (auto& block : acc[0]) Settle(block);
    StoreWarp<kBackward>(g, epilogue, rows, tile.column, acc, masks, sums + warp * kColumns);
  }
  __syncthreads();
  StoreSums<kRowWarps, kColumns>(g, epilogue, tile, sums);
}

// ---- Launching ----------------------------------------------------------------------------------------

// Finds the driver's function at run time, since machines that build may have no driver.
template <class Function>
cudaError_t FindInDriver(const char* name, Function*& function) {
  constexpr unsigned int kSince = 12000;  // the CUDA version that introduced both
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion(name, &found, kSince, cudaEnableDefault, &result);
  function = reinterpret_cast<Function*>(found);
  if (error != cudaSuccess) return error;
  return result == cudaDriverEntryPointSuccess ? cudaSuccess : cudaErrorNotSupported;
}

cudaError_t ErrorOf(CUresult result) {
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t MapPixels(const Arguments& a, CUtensorMap* map) {
  decltype(cuTensorMapEncodeIm2col)* encode = nullptr;
  if (const cudaError_t error = FindInDriver("cuTensorMapEncodeIm2col", encode); error != cudaSuccess)
    return error;
  const Gemm& g = a.gemm;
  const auto extent = [](int64_t n) { return static_cast<cuuint64_t>(n); };
  const int64_t pixel = g.in_pitch * int64_t{sizeof(bf16)};
  const cuuint64_t sizes[] = {extent(g.depth), extent(g.width), extent(g.height), extent(g.images)};
  const cuuint64_t strides[] = {extent(pixel), extent(pixel * g.width), extent(pixel * g.width * g.height)};
  const Corner first = LowerCorner(g), last = UpperCorner(g);
  const int lower[] = {first.column, first.row}, upper[] = {last.column, last.row};
  const cuuint32_t steps[] = {1, 1, 1, 1};
  return ErrorOf(encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<bf16*>(a.in), sizes, strides,
                        lower, upper, kStepDepth, StepPixels(g.across), steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
}

cudaError_t MapWeights(const Arguments& a, int tile_columns, CUtensorMap* map) {
  decltype(cuTensorMapEncodeTiled)* encode = nullptr;
  if (const cudaError_t error = FindInDriver("cuTensorMapEncodeTiled", encode); error != cudaSuccess)
    return error;
  const Gemm& g = a.gemm;
  const auto filters = static_cast<cuuint64_t>(g.backward ? g.depth : g.columns);
  const auto channels = static_cast<cuuint64_t>(g.backward ? g.columns : g.depth);
  const auto taps = static_cast<cuuint64_t>(g.taps());
  const cuuint64_t sizes[] = {channels, taps, filters};
  const cuuint64_t strides[] = {channels * sizeof(bf16), channels * taps * sizeof(bf16)};
  const cuuint32_t rows = g.backward ? kBoxRows : static_cast<cuuint32_t>(tile_columns);
  const cuuint32_t box[] = {kStepDepth, 1, rows}, steps[] = {1, 1, 1};
  return ErrorOf(encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<bf16*>(a.weights), sizes,
                        strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                        CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
}

template <bool kBackward, int kColumns, int kAcross>
cudaError_t Launch(const Arguments& a, cudaStream_t stream) {
  constexpr int kSharedBytes = Layout<kBackward, kColumns, kAcross>::kSharedBytes;
  const auto kernel = ConvSm90<kBackward, kColumns, kAcross>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (allowed != cudaSuccess) return allowed;
  CUtensorMap pixels, weights;
  if (const cudaError_t error = MapPixels(a, &pixels); error != cudaSuccess) return error;
  if (const cudaError_t error = MapWeights(a, kColumns, &weights); error != cudaSuccess) return error;
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
