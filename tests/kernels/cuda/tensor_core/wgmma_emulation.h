// The boxes of TMA and the matrix descriptors of wgmma as the PTX ISA describes them. A vector replaces
// shared memory.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "kernels/base/bf16.h"
#include "kernels/cuda/tensor_core/conv_tensor_map.h"
#include "kernels/cuda/tensor_core/conv_tiling.h"
#include "tests/kernels/cuda/tensor_core/mma_emulation.h"

namespace deeper::conv {

// Functions of the index, which check it.
struct Operands {
  std::function<bf16(size_t)> in, weights;
  const bf16* pooled_in = nullptr;  // pooled inputs are in memory
  uint8_t* positions = nullptr;     // of their maxima
};
inline std::function<bf16(size_t)> ElementsOf(const std::vector<bf16>& tensor) {
  return [&tensor](size_t index) { return tensor.at(index); };
}

// PTX ISA, "Swizzling modes", 128 bytes: bits 4 to 6 of an address are XORed with its bits 7 to 9.
inline uint32_t Swizzled(uint32_t address) {
  return address ^ ((address >> 7 & 7) << 4);
}

inline void WriteBox(Shared& shared, uint32_t to, int row, int element, bf16 value) {
  const uint32_t address = Swizzled(to + row * 128 + element * 2);
  std::memcpy(&shared.at(address - kBase), &value, sizeof value);
}

// PTX ISA, "Im2col mode", and cuTensorMapEncodeIm2col: the box takes pixels in the order of rows within the
// bounding box, then of images. The bounding box extends from the lower corner to the last pixel plus the
// upper corner. The offsets shift each read. Outside the tensor there are zeros.
inline void LoadPixels(Shared& shared, uint32_t to, const Im2colMap& map,
                       const std::function<bf16(size_t)>& elements, PixelBox box, const Step& step) {
  const auto size = [&map](int dimension) { return static_cast<int>(map.sizes[dimension]); };
  for (int i = 0; i < static_cast<int>(map.pixels); ++i) {
    const int row = box.row + step.row, column = box.column + step.column;
    const bool inside = box.image < size(3) && row >= 0 && row < size(2) && column >= 0 && column < size(1);
    const uint64_t pixel = static_cast<uint64_t>(box.image) * map.strides[2] +
                           static_cast<uint64_t>(row) * map.strides[1] +
                           static_cast<uint64_t>(column) * map.strides[0];
    for (int c = 0; c < static_cast<int>(map.channels); ++c) {
      const int channel = box.channel + c;
      bf16 value = {0};
      if (inside && channel < size(0)) value = elements(pixel / sizeof(bf16) + static_cast<size_t>(channel));
      WriteBox(shared, to, i, c, value);
    }
    if (++box.column <= size(1) - 1 + map.upper[0]) continue;
    box.column = map.lower[0];
    if (++box.row <= size(2) - 1 + map.upper[1]) continue;
    box.row = map.lower[1];
    ++box.image;
  }
}

// PTX ISA, "Tiled mode", and cuTensorMapEncodeTiled: channels of one tap of several filters.
inline void LoadWeights(Shared& shared, uint32_t to, const TiledMap& map, const Operands& operands,
                        const WeightBox& box) {
  for (int row = 0; row < static_cast<int>(map.box[2]); ++row) {
    for (int element = 0; element < static_cast<int>(map.box[0]); ++element) {
      const uint64_t filter = static_cast<uint64_t>(box.filter + row),
                     channel = static_cast<uint64_t>(box.channel + element),
                     tap = static_cast<uint64_t>(box.tap);
      bf16 value = {0};
      if (filter < map.sizes[2] && tap < map.sizes[1] && channel < map.sizes[0]) {
        value = operands.weights((filter * map.strides[1] + tap * map.strides[0]) / sizeof(bf16) + channel);
      }
      WriteBox(shared, to, row, element, value);
    }
  }
}

// PTX ISA, "Asynchronous warpgroup level matrix instructions", strides and canonical layouts for a swizzle of
// 128 bytes: the position of an element under a matrix descriptor. `major` counts along the contiguous side.
struct MatrixDescriptor {
  explicit MatrixDescriptor(uint64_t bits)
      : start(static_cast<uint32_t>(bits & 0x3FFF) << 4),
        leading(static_cast<uint32_t>(bits >> 16 & 0x3FFF) << 4),
        stride(static_cast<uint32_t>(bits >> 32 & 0x3FFF) << 4) {
    EXPECT_EQ(bits >> 62, 1u);                                        // a swizzle of 128 bytes
    EXPECT_EQ(bits >> 49 & 7, 0u);                                    // base offset
    EXPECT_EQ(bits & 0x3FFFC000C000C000 & ~(uint64_t{7} << 49), 0u);  // all other bits are 0
  }
  // K-major: rows of m or n by 16 of depth.
  uint32_t Rows(int row, int depth) const {
    return Swizzled(start + row / 8 * stride + row % 8 * 128 + depth * 2);
  }
  // MN-major: 64 of n, then the next 64; 8 of depth, then the next 8.
  uint32_t Columns(int column, int depth) const {
    return Swizzled(start + column / 64 * leading + depth / 8 * stride + depth % 8 * 128 + column % 64 * 2);
  }
  uint32_t start, leading, stride;
};

}  // namespace deeper::conv
