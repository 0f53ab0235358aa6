// The descriptions of the tensors of conv_sm90.cu and conv_dw_sm90.cu, from which TMA copies boxes. cuda.h
// states the rules of these values; tests/kernels/cuda/tensor_core/conv_tensor_map_test.cpp checks them.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/tensor_core/conv_tiling.h"

namespace deeper::conv {

// The arguments that both functions have. Dimensions start with the one whose elements are neighbours.
template <int kDimensions>
struct TensorMapOf {
  static constexpr cuuint32_t kRank = kDimensions;
  CUtensorMapDataType type = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  void* address = nullptr;
  cuuint64_t sizes[kDimensions] = {};        // elements
  cuuint64_t strides[kDimensions - 1] = {};  // bytes, without those of the first dimension
  cuuint32_t steps[kDimensions] = {};        // between elements that are copied
  CUtensorMapInterleave interleave = CU_TENSOR_MAP_INTERLEAVE_NONE;
  CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_128B;
  CUtensorMapL2promotion promotion = CU_TENSOR_MAP_L2_PROMOTION_L2_128B;
  CUtensorMapFloatOOBfill fill = CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE;  // zeros
};

// Of cuTensorMapEncodeIm2col: channel, column, row, image.
struct Im2colMap : TensorMapOf<4> {
  int lower[2] = {}, upper[2] = {};     // column, row: corners of the pixels under a filter's first tap
  cuuint32_t channels = 0, pixels = 0;  // of a box
};
inline Im2colMap MapOfPixels(const Gemm& g, const bf16* tensor, int channels, int64_t pitch,
                             const Corner& first, const Corner& last, int pixels) {
  const auto extent = [](int64_t n) { return static_cast<cuuint64_t>(n); };
  const int64_t pixel = pitch * int64_t{sizeof(bf16)};
  return {{.address = const_cast<bf16*>(tensor),
           .sizes = {extent(channels), extent(g.width), extent(g.height), extent(g.images)},
           .strides = {extent(pixel), extent(pixel * g.width), extent(pixel * g.width * g.height)},
           .steps = {1, 1, 1, 1}},
          {first.column, first.row},
          {last.column, last.row},
          kStepDepth,
          static_cast<cuuint32_t>(pixels)};
}
inline Im2colMap PixelMap(const Gemm& g, const bf16* in) {
  return MapOfPixels(g, in, g.depth, g.in_pitch, LowerCorner(g), UpperCorner(g), StepPixels(g.across));
}
// Of dy, for the gradient of the weights. A row ends with the zeros after its last pixel.
inline Im2colMap GradientMap(const Gemm& g, const bf16* dy) {
  return MapOfPixels(g, dy, g.columns, g.out_pitch, {0, 0}, {0, g.row_places() - g.width}, kTilePixels);
}

// Of cuTensorMapEncodeTiled: channel, tap, filter.
struct TiledMap : TensorMapOf<3> {
  cuuint32_t box[3] = {};
};
inline TiledMap WeightMap(const Gemm& g, int tile_columns, const bf16* weights) {
  const auto filters = static_cast<cuuint64_t>(g.backward ? g.depth : g.columns);
  const auto channels = static_cast<cuuint64_t>(g.backward ? g.columns : g.depth);
  const auto taps = static_cast<cuuint64_t>(g.taps());
  return {{.address = const_cast<bf16*>(weights),
           .sizes = {channels, taps, filters},
           .strides = {channels * sizeof(bf16), channels * taps * sizeof(bf16)},
           .steps = {1, 1, 1}},
          {kStepDepth, 1, static_cast<cuuint32_t>(g.backward ? kBoxRows : tile_columns)}};
}

}  // namespace deeper::conv
