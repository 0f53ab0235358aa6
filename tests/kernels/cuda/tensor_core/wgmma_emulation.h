// The boxes of TMA and the matrix descriptors of wgmma as the PTX ISA describes them. A vector replaces
// shared memory.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "kernels/base/bf16.h"
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
inline void LoadPixels(Shared& shared, uint32_t to, const Gemm& g, const Operands& operands, PixelBox box,
                       const Step& step) {
  for (int i = 0; i < StepPixels(g.across); ++i) {
    const int row = box.row + step.row, column = box.column + step.column;
    for (int c = 0; c < kStepDepth; ++c) {
      bf16 value = {0};
      if (box.image < g.images && row >= 0 && row < g.height && column >= 0 && column < g.width &&
          box.channel + c < g.depth) {
        const int64_t pixel = (int64_t{box.image} * g.height + row) * g.width + column;
        value = operands.in(static_cast<size_t>(pixel * g.in_pitch + box.channel + c));
      }
      WriteBox(shared, to, i, c, value);
    }
    if (++box.column <= g.width - 1 + UpperCorner(g).column) continue;
    box.column = LowerCorner(g).column;
    if (++box.row <= g.height - 1 + UpperCorner(g).row) continue;
    box.row = LowerCorner(g).row;
    ++box.image;
  }
}

// PTX ISA, "Tiled mode": 64 channels of one tap of `rows` filters.
inline void LoadWeights(Shared& shared, uint32_t to, const Gemm& g, const Operands& operands,
                        const WeightBox& box, int rows) {
  const int channels = g.backward ? g.columns : g.depth, filters = g.backward ? g.depth : g.columns;
  for (int row = 0; row < rows; ++row) {
    for (int element = 0; element < 64; ++element) {
      const int filter = box.filter + row, channel = box.channel + element;
      bf16 value = {0};
      if (filter < filters && channel < channels) {
        value = operands.weights(
            static_cast<size_t>((int64_t{filter} * g.taps() + box.tap) * channels + channel));
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
