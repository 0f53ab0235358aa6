// How nvcc should compile addresses and loops, to need few instructions and registers.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/base/host_device.h"

// Before a loop that nvcc should unroll completely, or not at all.
#ifdef __CUDA_ARCH__
#define DEEPER_UNROLL _Pragma("unroll")
#define DEEPER_NO_UNROLL _Pragma("unroll 1")
#else
#define DEEPER_UNROLL
#define DEEPER_NO_UNROLL
#endif

namespace deeper {

// The start of row `row` of a matrix. A product of two numbers of 32 bits is one instruction.
template <class T>
DEEPER_HD T* RowAt(T* matrix, int row, int row_bytes) {
  using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
  return reinterpret_cast<T*>(reinterpret_cast<Byte*>(matrix) + int64_t{row} * row_bytes);
}

// The same address in global memory, computed here: nvcc does not merge the sum into later ones, where it
// costs more.
template <class T>
DEEPER_HD T* Computed(T* address) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+l"(address));
  __builtin_assume(__isGlobal(address));
#endif
  return address;
}

DEEPER_HD inline int Computed(int number) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+r"(number));
#endif
  return number;
}

}  // namespace deeper
