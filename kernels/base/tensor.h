// Shapes, element types and views. Nothing here owns memory: see buffer.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include "kernels/base/bf16.h"
#include "kernels/base/check.h"

namespace deeper {

// The smallest multiple of `unit` that is at least n.
template <class T>
constexpr T RoundUp(T n, std::type_identity_t<T> unit) {
  return (n + unit - 1) / unit * unit;
}

enum class DType : uint8_t { kF32, kBf16, kU8 };

constexpr size_t SizeOf(DType t) {
  return t == DType::kU8 ? 1 : t == DType::kBf16 ? 2 : 4;
}

constexpr const char* NameOf(DType t) {
  constexpr const char* kNames[] = {"fp32", "bf16", "u8"};
  return kNames[static_cast<size_t>(t)];
}

// Calls body.operator()<T>() with the element type T, float or bf16.
template <class Body>
void WithFloatType(DType dtype, const Body& body) {
  DEEPER_CHECK(dtype == DType::kF32 || dtype == DType::kBf16, NameOf(dtype));
  if (dtype == DType::kBf16) {
    body.template operator()<bf16>();
  } else {
    body.template operator()<float>();
  }
}

// Logical shape, always in the order N, C, H, W; a matrix of feature vectors has h = w = 1.
struct Shape {
  int64_t n = 1, c = 1, h = 1, w = 1;

  constexpr int64_t elements() const { return n * c * h * w; }
  constexpr int64_t spatial() const { return h * w; }
  friend constexpr bool operator==(const Shape&, const Shape&) = default;
  std::string ToString() const {
    return std::string("[") + std::to_string(n) + ", " + std::to_string(c) + ", " + std::to_string(h) + ", " +
           std::to_string(w) + "]";
  }
};

// The order of a tensor's elements in memory.
//   kNchw     dense N,C,H,W; feature vectors [N,C] are kNchw with h = w = 1.
//   kBlocked  N, ceil(C/b), H, W, b with b = TensorDesc::block (oneDNN's nChw16c / nChw8c). Channels that
//             pad C to a multiple of b are always zero: every writer preserves this.
//   kNhwc     N,H,W,C, dense or a slice of the channels of wider pixels (TensorDesc::pitch).
enum class Layout : uint8_t { kNchw, kBlocked, kNhwc };

struct TensorDesc {
  Shape shape;
  DType dtype = DType::kF32;
  Layout layout = Layout::kNchw;
  int64_t block = 1;  // channels per block; 1 unless kBlocked
  // kNhwc only. A slice is the channels [first, first + shape.c) of pixels of `pitch` channels. Its address
  // is that of the whole pixels. pitch 0: dense.
  int64_t pitch = 0, first = 0;

  constexpr int64_t pixel_pitch() const { return pitch > 0 ? pitch : shape.c; }
  constexpr TensorDesc Dense() const { return {shape, dtype, layout, block}; }
  constexpr int64_t padded_channels() const { return RoundUp(shape.c, block); }
  // Elements in memory, including padding channels and the channels outside a slice.
  constexpr int64_t stored_elements() const {
    return shape.n * (pitch > 0 ? pitch : padded_channels()) * shape.h * shape.w;
  }
  constexpr size_t bytes() const { return static_cast<size_t>(stored_elements()) * SizeOf(dtype); }
  friend constexpr bool operator==(const TensorDesc&, const TensorDesc&) = default;

  // The position in memory of the logical element (n, c, h, w).
  constexpr int64_t Offset(int64_t n, int64_t c, int64_t h, int64_t w) const {
    switch (layout) {
      case Layout::kNchw:
        return ((n * shape.c + c) * shape.h + h) * shape.w + w;
      case Layout::kNhwc:
        return ((n * shape.h + h) * shape.w + w) * pixel_pitch() + first + c;
      case Layout::kBlocked:
        return (((n * (padded_channels() / block) + c / block) * shape.h + h) * shape.w + w) * block +
               c % block;
    }
    return 0;
  }
};

// A view of memory that another object owns.
struct Tensor {
  void* data = nullptr;
  TensorDesc desc;

  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

}  // namespace deeper
