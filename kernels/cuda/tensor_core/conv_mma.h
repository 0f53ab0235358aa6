// Instructions of compute capability 8.0 and later: asynchronous copies, and products of small matrices per
// warp. For .cu files only.
#pragma once

#include <cstdint>

#include "kernels/base/bf16.h"

namespace deeper::conv {

// PTX ISA, "cp.async": copies 16 bytes, or writes zeros if the source is outside.
__device__ inline void CopyAsync(uint32_t to, const bf16* from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(to), "l"(from), "r"(inside ? 16 : 0)
               : "memory");
}
// PTX ISA, "cp.async": likewise 8 bytes.
__device__ inline void CopyPixel(uint32_t to, const bf16* from, bool inside) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;"
               :
               : "r"(to), "l"(from), "r"(inside ? 8 : 0)
               : "memory");
}
// PTX ISA, "cp.async.commit_group", "cp.async.wait_group".
__device__ inline void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int kPending>
__device__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// The machine of CopyAndMultiply (conv_pipeline.h). copy(step, stage) calls CopyAsync; multiply(step, stage).
template <class CopyStep, class MultiplyStep>
struct CopyMachine {
  const CopyStep& copy;
  const MultiplyStep& multiply;

  __device__ void Copy(int step, int stage) { copy(step, stage); }
  __device__ void CommitCopies() const { conv::CommitCopies(); }
  template <int kPending>
  __device__ void WaitForCopies() const {
    conv::WaitForCopies<kPending>();
  }
  __device__ void Synchronize() const { __syncthreads(); }
  __device__ void Multiply(int step, int stage) { multiply(step, stage); }
};
template <class CopyStep, class MultiplyStep>
CopyMachine(CopyStep, MultiplyStep) -> CopyMachine<CopyStep, MultiplyStep>;

// PTX ISA, "ldmatrix": four matrices of 8x8, transposed or not.
template <bool kTransposed>
__device__ void LoadMatrices(uint32_t from, uint32_t (&v)[4]) {
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(from)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(from)
                 : "memory");
  }
}

// PTX ISA, "Matrix fragments for mma.m16n8k16": acc += a b.
__device__ inline void Multiply(float (&acc)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace deeper::conv
