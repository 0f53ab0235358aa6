// The gradients of the weights and of the bias of the first convolution, by mma.sync, for compute capability
// 8.0 and later. Memory layout and order of work: conv_stem_gradient_tiling.h.
//
// While a band is multiplied, its block already spreads the next one, and cp.async copies its rows of the
// image.
#include <cstdint>

#include "kernels/cuda/base/kernel_launch.h"
#include "kernels/cuda/tensor_core/conv_column_sums.h"
#include "kernels/cuda/tensor_core/conv_mma.h"
#include "kernels/cuda/tensor_core/conv_pipeline.h"
#include "kernels/cuda/tensor_core/conv_stem.h"
#include "kernels/cuda/tensor_core/conv_stem_gradient_tiling.h"

namespace deeper::conv {
namespace {

constexpr int kBlocksOnSm = 2;
constexpr int kFragments = kStemFilters / 16, kBlocks = kRowDepth / 8;

using Sums = float[kFragments][kBlocks][4];

// acc += dz^T patches, for a row of the filter and the places of a row of a band. `dz`, `pixels`: of these.
__device__ inline void MultiplyRow(uint32_t dz, uint32_t pixels, Sums& acc) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  uint32_t from[kFragments];
#pragma unroll
  for (int fragment = 0; fragment < kFragments; ++fragment)
    from[fragment] = dz + GradientMatrixOffset(fragment * 16, 0, lane);
  pixels += PatchMatrixOffset(0, 0, lane);
#pragma unroll
  for (int slice = 0; slice < kBandPlaces / kSliceDepth; ++slice) {
    uint32_t b[kBlocks / 2][4];
#pragma unroll
    for (int pair = 0; pair < kBlocks / 2; ++pair)
      LoadMatrices<true>(pixels + (slice * kSliceDepth + pair * 2) * 16, b[pair]);
    if (lane >= kFirstBiasLane) b[kBlocks / 2 - 1][2] = b[kBlocks / 2 - 1][3] = kPairOfOnes;
#pragma unroll
    for (int fragment = 0; fragment < kFragments; ++fragment) {
      uint32_t a[4];
      LoadMatrices<true>(from[fragment] + slice * kSliceDepth * kRowBytes, a);
#pragma unroll
      for (int block = 0; block < kBlocks; ++block)
        Multiply(acc[fragment][block], a, b[block / 2][block % 2 * 2], b[block / 2][block % 2 * 2 + 1]);
    }
  }
}

// Spreads dy to a thread's quad of a band.
__device__ inline void SpreadQuad(const Stem& g, const Band& band, int quad, int filter,
                                  const StemGradient& in, unsigned char* dz) {
  const QuadWindows windows = WindowsOf(g, band, quad, filter, in);
#pragma unroll
  for (int place = 0; place < 4; ++place)
    *reinterpret_cast<Octet*>(dz + QuadOffset(quad, place, filter)) = GradientOfPlace(windows, place);
}

// The machine of SpreadAndMultiply (conv_pipeline.h). copy(); spread(stage, half); multiply(stage, half).
template <class CopyBand, class SpreadHalf, class MultiplyHalf>
struct SpreadMachine {
  const CopyBand& copy;
  const SpreadHalf& spread;
  const MultiplyHalf& multiply;

  __device__ void Copy(int, int) { copy(); }
  __device__ void CommitCopies() const { conv::CommitCopies(); }
  template <int kPending>
  __device__ void WaitForCopies() const {
    conv::WaitForCopies<kPending>();
  }
  __device__ void Synchronize() const { __syncthreads(); }
  __device__ void Spread(int, int stage, int half) { spread(stage, half); }
  __device__ void Multiply(int, int stage, int half) { multiply(stage, half); }
};
template <class CopyBand, class SpreadHalf, class MultiplyHalf>
SpreadMachine(CopyBand, SpreadHalf, MultiplyHalf) -> SpreadMachine<CopyBand, SpreadHalf, MultiplyHalf>;

__global__ void __launch_bounds__(kBandThreads, kBlocksOnSm)
    StemGradientSm80(const Stem g, const bf16* x, const StemGradient in, float* partial) {
  AwaitPreviousKernel();
  extern __shared__ __align__(kSwizzleBytes) unsigned char shared[];
  const auto base = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const uint32_t ring = base + kBandStages * kBandBytes;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  // The shuffle shows the compiler that a warp has one value. It then needs fewer registers.
  const int warp = __shfl_sync(~0u, thread / 32, 0);
  const int filter = ChunkOfThread(thread);
  const int split = static_cast<int>(blockIdx.x), first = split * BandsOfSplit(g);
  const int end = min(first + BandsOfSplit(g), BandCount(g));

  BandRows spread_band = FirstBandRows(g, first), multiplied_band = spread_band;
  const auto copy = [&] {
    for (int row = kBandRows - spread_band.copied + warp; row < kBandRows; row += kStemKernel) {
      const uint32_t to = ring + spread_band.SlotOf(row) * kBandRowBytes;
      CopyBandRow(g, spread_band.band, row, lane, [&](int offset, int64_t from, bool inside) {
        CopyPixel(to + offset, inside ? x + from : x, inside);
      });
    }
  };
  const auto spread = [&](int stage, int half) {
    SpreadQuad(g, spread_band.band, QuadOfThread(thread, half), filter, in, shared + stage * kBandBytes);
    if (half == 1) AdvanceRows(g, spread_band);
  };
  Sums acc = {};
  const auto multiply = [&](int stage, int half) {
    MultiplyRow(base + stage * kBandBytes + half * kBandPlaces * kRowBytes,
                ring + multiplied_band.SlotOf(2 * half + warp) * kBandRowBytes, acc);
    if (half == 1) AdvanceRows(g, multiplied_band);
  };
  SpreadMachine machine = {copy, spread, multiply};
  SpreadAndMultiply(end - first, machine);

  float* const to = partial + int64_t{split} * kStemSums;
#pragma unroll
  for (int fragment = 0; fragment < kFragments; ++fragment) {
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
        const int index =
            StemSumIndex(fragment * 16 + FragmentRow(lane, i), warp, block * 8 + FragmentColumn(lane, i));
        const float* const values = acc[fragment][block] + i;
        if (index >= kStemWeights) {
          to[index] = values[0];
        } else if (index >= 0) {
          *reinterpret_cast<float2*>(to + index) = {values[0], values[1]};
        }
      }
    }
  }
}

// Adds the sums of all splits.
__global__ void __launch_bounds__(kBlockColumns* kThreadsOfColumn)
    AddStemSums(const float* partial, int splits, float* dw, float* db) {
  AwaitPreviousKernel();
  const float sum = ColumnSum(partial, splits, kStemSums);
  const int column = ColumnOfThread();
  if (threadIdx.y != 0 || column >= kStemSums) return;
  if (column >= kStemWeights) {
    db[column - kStemWeights] = sum;
    return;
  }
  const int index = StoredWeight(column);
  dw[index] = sum;
  dw[index + kStemChannels] = 0;
}

}  // namespace

cudaError_t LaunchStemGradientSm80(const StemGradientArguments& a, cudaStream_t stream) {
  static const cudaError_t allowed =
      cudaFuncSetAttribute(StemGradientSm80, cudaFuncAttributeMaxDynamicSharedMemorySize, kBandSharedBytes);
  if (allowed != cudaSuccess) return allowed;
  const int splits = StemSplits(a.stem);
  const cudaError_t error = LaunchKernel(StemGradientSm80, splits, kBandThreads, kBandSharedBytes, stream,
                                         a.stem, a.x, a.in, a.partial);
  if (error != cudaSuccess) return error;
  return LaunchKernel(AddStemSums, CeilDiv(kStemSums, kBlockColumns), dim3(kBlockColumns, kThreadsOfColumn),
                      0, stream, a.partial, splits, a.dw, a.db);
}

}  // namespace deeper::conv
