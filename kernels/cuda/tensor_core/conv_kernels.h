// Launches of our tensor core convolutions. They check nothing: conv_tensor_core.cpp validates the arguments.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/tensor_core/conv_tiling.h"

namespace deeper::conv {

template <int... kSizes>
struct Sizes {
  static constexpr int kAll[] = {kSizes...};
};

// Calls launch.operator()<size>() if there are kernels for tiles of this size.
template <int... kSizes, class Launch>
cudaError_t WithTile(Sizes<kSizes...>, int size, const Launch& launch) {
  cudaError_t error = cudaErrorInvalidValue;
  (void)((size == kSizes && (error = launch.template operator()<kSizes>(), true)) || ...);
  return error;
}

struct Arguments {
  Gemm gemm;
  const bf16* in = nullptr;       // aligned to 16 bytes, like all data that moves in chunks
  const bf16* weights = nullptr;  // [filter][tap][channel], dense
  Epilogue epilogue;
  // Pooled: the position of each maximum, [pixel][channel], as row * 3 + column. nullptr: not needed. Aligned
  // to 8 bytes.
  uint8_t* positions = nullptr;
};

// For any GPU of compute capability 8.0 or later. tile_columns: 64 or 128.
cudaError_t LaunchSm80(int tile_columns, const Arguments& arguments, cudaStream_t stream);
// The same for a forward 1x1 convolution of the maximum of each pixel's 3x3 neighbours.
cudaError_t LaunchPooledSm80(int tile_columns, const Arguments& arguments, cudaStream_t stream);
// The columns of tiles for GPUs of compute capability 9.0, by Gemm::across. For several taps, they are those
// of GoogLeNet: the columns of a product, or half of them.
template <int kAcross, bool kBackward>
struct Sm90Tiles;
template <bool kBackward>
struct Sm90Tiles<1, kBackward> : Sizes<64, 128, 192> {};
template <>
struct Sm90Tiles<3, false> : Sizes<64, 128, 144, 160, 192, 208, 224> {};
template <>
struct Sm90Tiles<3, true> : Sizes<64, 96, 112, 128, 144, 160, 192> {};
template <>
struct Sm90Tiles<5, false> : Sizes<32, 48, 64, 96, 128> {};
template <>
struct Sm90Tiles<5, true> : Sizes<16, 24, 32, 48, 64> {};

// For GPUs of compute capability 9.0. tile_columns: one of Sm90Tiles.
cudaError_t LaunchSm90(int tile_columns, const Arguments& arguments, cudaStream_t stream);

// The gradient of the weights of that convolution.
struct PooledGradientArguments {
  Gemm gemm;                 // of the convolution, forward
  const bf16* x = nullptr;   // before the maxima
  const bf16* dy = nullptr;  // both aligned to 16 bytes
  float* partial = nullptr;  // PartialSums (conv_pool_tiling.h) of them
  float* dw = nullptr;       // [filter][channel]
};
// tile_filters: 64 or 128.
cudaError_t LaunchPooledGradientSm80(int tile_filters, const PooledGradientArguments& arguments,
                                     cudaStream_t stream);

// The gradient of the weights of a 3x3 convolution.
struct WeightGradientArguments {
  Gemm gemm;  // of the convolution, forward, with a row of taps per step
  const bf16* x = nullptr;
  const bf16* dy = nullptr;  // both aligned to 16 bytes
  float* partial = nullptr;  // DwPartialSums (conv_dw_tiling.h) of them
  float* dw = nullptr;       // [filter][tap][channel]
};
// The channels of tiles: those of GoogLeNet, or half of them.
using DwChannels = Sizes<64, 72, 80, 96, 112, 128>;
// For GPUs of compute capability 9.0. tile_channels: one of DwChannels.
cudaError_t LaunchWeightGradientSm90(int tile_channels, const WeightGradientArguments& arguments,
                                     cudaStream_t stream);

// sums[column] = the sum of partial[tile][column] over the tiles. The order depends only on their number.
cudaError_t LaunchSums(const float* partial, int tiles, int columns, float* sums, cudaStream_t stream);
// The same with fewer threads per column, for many columns: a multiple of 4. All aligned to 16 bytes.
cudaError_t LaunchSplitSums(const float* partial, int splits, int columns, float* sums, cudaStream_t stream);

}  // namespace deeper::conv
