// Convolution on the tensor cores of compute capability 9.0: implicit GEMM by wgmma, with data copied by TMA.
// Memory layout: conv_tiling.h.
//
// A block has a tile of 128 pixels by 64, 128 or 192 columns. Warps 0 to 7 form two warpgroups, each of which
// multiplies 64 pixels by all columns. One lane of warp 8 keeps their stages full. TMA's im2col mode reads
// 128 pixels across rows and images, shifted by a tap, and writes the zeros. No thread computes an address.
//
//   columns of a tile | stages | shared memory | blocks on an SM | FLOPs per step | bytes | FLOPs per byte
//                  64 |      4 |         99 KB |               2 |            1 M | 24 KB |             43
//                 128 |      3 |        101 KB |               2 |            2 M | 32 KB |             64
//                 192 |      5 |        207 KB |               1 |            3 M | 40 KB |             77
// Nearly all these bytes come from the L2 cache: each tap reads a pixel again, and each tile reads w again.
//
// Each stage has two barriers. `full` completes when all its bytes have arrived, `empty` when the 8 warps
// have read them. Round r of the stages waits for phase r of `full` and, to fill, for phase r - 1 of `empty`.
// A wait identifies its phase by the lowest bit.
#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/tensor_core/conv_epilogue.h"
#include "kernels/cuda/tensor_core/conv_kernels.h"

namespace deeper::conv {
namespace {

constexpr int kWarpgroups = 2, kWarpgroupThreads = 128;
constexpr int kMultiplyThreads = kWarpgroups * kWarpgroupThreads;
constexpr int kBlockThreads = kMultiplyThreads + 32;
constexpr int kRowWarps = kMultiplyThreads / 32;
static_assert(kTilePixels == kWarpgroups * 64);

constexpr int StagesOf(int columns) {
  return columns == 64 ? 4 : columns == 128 ? 3 : 5;
}
constexpr int BlocksOnSm(int columns) {
  return columns <= 128 ? 2 : 1;
}
// Stages, barriers, sums, and the padding to start at a multiple of kSwizzleBytes.
constexpr int SharedBytes(int columns) {
  return StagesOf(columns) * (StageBytes(columns) + 2 * static_cast<int>(sizeof(uint64_t))) +
         kRowWarps * columns * static_cast<int>(sizeof(float)) + kSwizzleBytes;
}
// An SM has 228 KB, and each block uses 1 KB in addition.
constexpr bool Fits(int columns) {
  return BlocksOnSm(columns) * (SharedBytes(columns) + 1024) <= 228 * 1024;
}
static_assert(Fits(64) && Fits(128) && Fits(192));

// ---- PTX ----------------------------------------------------------------------------------------------
// Named after the sections of the PTX ISA. Addresses are in shared memory, unless said otherwise.

// "mbarrier.init"
__device__ void InitBarrier(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// "membar / fence": makes the barriers known to TMA.
__device__ void PublishBarriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// "mbarrier.arrive"
__device__ void Arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// "mbarrier.arrive", after "mbarrier.expect_tx": the phase also waits for that many bytes.
__device__ void ArriveAndExpect(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
// A wait ends in a fault after this time, thousands of times that of a whole kernel. Otherwise a mistake in
// the use of a barrier would occupy the GPU for ever.
constexpr uint64_t kWaitLimitNs = 4'000'000'000;

// "mbarrier.test_wait / mbarrier.try_wait": until the phase of that parity has completed.
__device__ void Wait(uint32_t barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done, late;\n"
      ".reg .u64 start, now;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra completed;\n"
      "mov.u64 start, %%globaltimer;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra completed;\n"
      "mov.u64 now, %%globaltimer;\n"
      "sub.u64 now, now, start;\n"
      "setp.gt.u64 late, now, %2;\n"
      "@late trap;\n"
      "bra again;\n"
      "completed:\n"
      "}" ::"r"(barrier),
      "r"(parity), "n"(kWaitLimitNs)
      : "memory");
}

// "cp.async.bulk.tensor", mode im2col: pixels shifted by a tap.
__device__ void LoadPixels(uint32_t to, const CUtensorMap& map, const PixelBox& box, const Step& step,
                           uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4, %5}], [%6], {%7, %8};"
      :
      : "r"(to), "l"(&map), "r"(box.channel), "r"(box.column), "r"(box.row), "r"(box.image), "r"(barrier),
        "h"(static_cast<uint16_t>(step.column)), "h"(static_cast<uint16_t>(step.row))
      : "memory");
}
// "cp.async.bulk.tensor", mode tile.
__device__ void LoadWeights(uint32_t to, const CUtensorMap& map, const WeightBox& box, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4}], [%5];"
      :
      : "r"(to), "l"(&map), "r"(box.channel), "r"(box.tap), "r"(box.filter), "r"(barrier)
      : "memory");
}

// "wgmma.fence": required before the first wgmma that uses these registers.
__device__ void BeginMultiply() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
// "wgmma.commit_group"
__device__ void CommitMultiply() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// "wgmma.wait_group"
template <int kPending>
__device__ void WaitForMultiply() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

#define DEEPER_BLOCK(acc, i) "+f"(acc[i][0]), "+f"(acc[i][1]), "+f"(acc[i][2]), "+f"(acc[i][3])
#define DEEPER_BLOCKS_OF_8(acc, i)                                                                    \
  DEEPER_BLOCK(acc, i), DEEPER_BLOCK(acc, i + 1), DEEPER_BLOCK(acc, i + 2), DEEPER_BLOCK(acc, i + 3), \
      DEEPER_BLOCK(acc, i + 4), DEEPER_BLOCK(acc, i + 5), DEEPER_BLOCK(acc, i + 6), DEEPER_BLOCK(acc, i + 7)

// "wgmma.mma_async": acc += a b for 64 pixels and a slice of depth. No negation; a has contiguous depth, b
// has contiguous columns if kBackward.
template <bool kBackward>
__device__ void Multiply(float (&acc)[1][8][4], uint64_t a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "%32, %33, 1, 1, 1, 0, %34;"
      : DEEPER_BLOCKS_OF_8(acc[0], 0)
      : "l"(a), "l"(b), "n"(kBackward));
}

template <bool kBackward>
__device__ void Multiply(float (&acc)[1][16][4], uint64_t a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, 1, 1, 1, 0, %66;"
      : DEEPER_BLOCKS_OF_8(acc[0], 0), DEEPER_BLOCKS_OF_8(acc[0], 8)
      : "l"(a), "l"(b), "n"(kBackward));
}

template <bool kBackward>
__device__ void Multiply(float (&acc)[1][24][4], uint64_t a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95}, "
      "%96, %97, 1, 1, 1, 0, %98;"
      : DEEPER_BLOCKS_OF_8(acc[0], 0), DEEPER_BLOCKS_OF_8(acc[0], 8), DEEPER_BLOCKS_OF_8(acc[0], 16)
      : "l"(a), "l"(b), "n"(kBackward));
}

// ---- The kernel ---------------------------------------------------------------------------------------

// The layout of shared memory.
template <int kColumns>
struct Layout {
  static constexpr int kStages = StagesOf(kColumns);
  uint32_t base;

  __device__ uint32_t Stage(int step) const { return base + step % kStages * StageBytes(kColumns); }
  __device__ uint32_t Full(int step) const {
    return base + kStages * StageBytes(kColumns) + step % kStages * int{sizeof(uint64_t)};
  }
  __device__ uint32_t Empty(int step) const { return Full(step) + kStages * int{sizeof(uint64_t)}; }
  static constexpr int kSums = kStages * (StageBytes(kColumns) + 2 * int{sizeof(uint64_t)});  // from base
  __device__ static int Parity(int step) { return step / kStages % 2; }
};

// The work of the lane that loads.
template <int kColumns>
__device__ void FillStages(const Gemm& g, const Tile& tile, const Layout<kColumns>& at,
                           const CUtensorMap& pixels, const CUtensorMap& weights) {
  const int steps = g.steps();
  for (int index = 0; index < steps; ++index) {
    // The first round has no earlier phase: a new barrier does not block a wait for parity 1.
    Wait(at.Empty(index), 1 - at.Parity(index));
    const Step step = StepAt(g, index);
    const uint32_t full = at.Full(index), stage = at.Stage(index);
    ArriveAndExpect(full, StageBytes(kColumns));  // zeros count as bytes, too
    LoadPixels(stage, pixels, PixelBoxOf(g, tile, step), step, full);
#pragma unroll
    for (int box = 0; box < kColumns / kBoxRows; ++box) {
      LoadWeights(stage + kPixelBytes + box * kBoxBytes, weights, WeightBoxOf(g, tile, step, box), full);
    }
  }
}

// Starts a warpgroup's products without waiting for them.
template <int kSlices, bool kBackward, int kBlocks>
__device__ void MultiplyStep(uint32_t stage, int warpgroup, float (&acc)[1][kBlocks][4]) {
  BeginMultiply();
#pragma unroll
  for (int slice = 0; slice < kSlices; ++slice) {
    Multiply<kBackward>(acc, PixelDescriptor(stage, warpgroup, slice),
                        WeightDescriptor(kBackward, stage, slice));
  }
  CommitMultiply();
}

// The work of a warpgroup. The products of a step run while it waits for the next step.
template <bool kBackward, int kColumns>
__device__ void MultiplyStages(const Gemm& g, const Layout<kColumns>& at, int warpgroup,
                               float (&acc)[1][kColumns / 8][4]) {
  const bool leader = threadIdx.x % 32 == 0;
  const int steps = g.steps();
  for (int index = 0; index < steps; ++index) {
    Wait(at.Full(index), at.Parity(index));
    const uint32_t stage = at.Stage(index);
    switch (StepAt(g, index).slices) {  // ptxas would insert fences at a branch between two wgmma
      case 1:
        MultiplyStep<1, kBackward>(stage, warpgroup, acc);
        break;
      case 2:
        MultiplyStep<2, kBackward>(stage, warpgroup, acc);
        break;
      case 3:
        MultiplyStep<3, kBackward>(stage, warpgroup, acc);
        break;
      default:
        MultiplyStep<4, kBackward>(stage, warpgroup, acc);
        break;
    }
    WaitForMultiply<1>();
    if (leader && index > 0) Arrive(at.Empty(index - 1));
  }
  WaitForMultiply<0>();
#pragma unroll
  for (auto& block : acc[0]) {
    asm volatile("" : DEEPER_BLOCK((&block), 0)::"memory");  // prevents earlier reads
  }
}

template <bool kBackward, int kColumns>
__global__ void __launch_bounds__(kBlockThreads, BlocksOnSm(kColumns))
    ConvSm90(const Gemm g, const __grid_constant__ CUtensorMap pixels,
             const __grid_constant__ CUtensorMap weights, const Epilogue epilogue) {
  extern __shared__ unsigned char unaligned[];
  const auto start = static_cast<uint32_t>(__cvta_generic_to_shared(unaligned));
  const uint32_t base = (start + kSwizzleBytes - 1) / kSwizzleBytes * kSwizzleBytes;
  const Layout<kColumns> at = {base};
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
    float acc[1][kColumns / 8][4] = {};
    MultiplyStages<kBackward>(g, at, warp / 4, acc);
    StoreWarp<kBackward>(g, epilogue, tile.pixel + warp * 16, tile.column, acc, sums + warp * kColumns);
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
  const int lower[] = {LowerCorner(g), LowerCorner(g)}, upper[] = {UpperCorner(g), UpperCorner(g)};
  const cuuint32_t steps[] = {1, 1, 1, 1};
  return ErrorOf(encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<bf16*>(a.in), sizes, strides,
                        lower, upper, kStepDepth, kTilePixels, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
}

cudaError_t MapWeights(const Arguments& a, CUtensorMap* map) {
  decltype(cuTensorMapEncodeTiled)* encode = nullptr;
  if (const cudaError_t error = FindInDriver("cuTensorMapEncodeTiled", encode); error != cudaSuccess)
    return error;
  const Gemm& g = a.gemm;
  const auto filters = static_cast<cuuint64_t>(g.backward ? g.depth : g.columns);
  const auto channels = static_cast<cuuint64_t>(g.backward ? g.columns : g.depth);
  const auto taps = static_cast<cuuint64_t>(g.taps());
  const cuuint64_t sizes[] = {channels, taps, filters};
  const cuuint64_t strides[] = {channels * sizeof(bf16), channels * taps * sizeof(bf16)};
  const cuuint32_t box[] = {kStepDepth, 1, kBoxRows}, steps[] = {1, 1, 1};
  return ErrorOf(encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<bf16*>(a.weights), sizes,
                        strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                        CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
}

template <bool kBackward, int kColumns>
cudaError_t Launch(const Arguments& a, cudaStream_t stream) {
  static const cudaError_t allowed = cudaFuncSetAttribute(
      ConvSm90<kBackward, kColumns>, cudaFuncAttributeMaxDynamicSharedMemorySize, SharedBytes(kColumns));
  if (allowed != cudaSuccess) return allowed;
  CUtensorMap pixels, weights;
  if (const cudaError_t error = MapPixels(a, &pixels); error != cudaSuccess) return error;
  if (const cudaError_t error = MapWeights(a, &weights); error != cudaSuccess) return error;
  ConvSm90<kBackward, kColumns><<<Blocks(a.gemm, kColumns), kBlockThreads, SharedBytes(kColumns), stream>>>(
      a.gemm, pixels, weights, a.epilogue);
  return cudaGetLastError();
}

}  // namespace

cudaError_t LaunchSm90(int tile_columns, const Arguments& arguments, cudaStream_t stream) {
  return WithTile<64, 128, 192>(tile_columns, [&]<int kColumns>() {
    return arguments.gemm.backward ? Launch<true, kColumns>(arguments, stream)
                                   : Launch<false, kColumns>(arguments, stream);
  });
}

}  // namespace deeper::conv
