// The memory layout of a fused module: one pitched buffer of feature maps with pixels of the form
//
//   [ padding | R2 | R3 | O1 | O2 | O3 | O4 | padding ]
//
// R2, R3: outputs of the 1x1 convolutions before the 3x3 and the 5x5. O1..O4: outputs of the branches. One
// matrix product writes [R2|R3|O1], and the other convolutions write their own slices. The module's readers
// read [O1..O4], so nothing is copied. A dense buffer holds the gradient of the first three:
//
//   G = [ dR2 | dR3 | dO1 ]
//
// G is an operand of two matrix products: the gradient of x and that of all three 1x1 weights. dO2, dO3 and
// dO4 are separate dense buffers, as the libraries' backward kernels require.
//
// O1 and the whole pixel are aligned to 128 bytes of bf16, so that a warp that reads [O1..O4] loads no unused
// sector. Every slice is aligned to 16 bytes if all counts are multiples of 8.
#pragma once

#include <cstdint>

#include "kernels/base/tensor.h"
#include "kernels/ops/inception/inception.h"

namespace deeper {

struct ChannelSlice {
  int64_t first = 0, count = 0;
  int64_t end() const { return first + count; }
};

struct InceptionBuffer {
  ChannelSlice r2, r3, o1, o2, o3, o4;
  int64_t pitch = 0;

  explicit InceptionBuffer(const InceptionParams& p) {
    constexpr int64_t kLine = 64;  // elements
    const int64_t reduced = p.c2_reduce + p.c3_reduce;
    r2 = {RoundUp(reduced, kLine) - reduced, p.c2_reduce};
    r3 = {r2.end(), p.c3_reduce};
    o1 = {r3.end(), p.c1};
    o2 = {o1.end(), p.c2};
    o3 = {o2.end(), p.c3};
    o4 = {o3.end(), p.c4};
    pitch = RoundUp(o4.end(), kLine);
  }

  int64_t first_width() const { return r2.count + r3.count + o1.count; }  // channels of [R2|R3|O1], and of G
  // A slice as a tensor. Its address is that of the whole buffer.
  TensorDesc Desc(const ChannelSlice& slice, const TensorDesc& x) const {
    TensorDesc desc = x.Dense();
    desc.shape.c = slice.count;
    desc.pitch = pitch;
    desc.first = slice.first;
    return desc;
  }
  TensorDesc Output(const TensorDesc& x) const { return Desc({o1.first, o4.end() - o1.first}, x); }
};

}  // namespace deeper
