// Instructions of compute capability 9.0 (sm_90a): barriers in shared memory, TMA, and products of
// warpgroups. For .cu files only. Named after the sections of the PTX ISA. Addresses are in shared memory,
// unless said otherwise.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/tensor_core/conv_tiling.h"

namespace deeper::conv {

// "mbarrier.init"
__device__ inline void InitBarrier(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// "membar / fence": makes the barriers known to TMA.
__device__ inline void PublishBarriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// "mbarrier.arrive"
__device__ inline void Arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// "mbarrier.arrive", after "mbarrier.expect_tx": the phase also waits for that many bytes.
__device__ inline void ArriveAndExpect(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
// A wait ends in a fault after this time, thousands of times that of a whole kernel. Otherwise a mistake in
// the use of a barrier would occupy the GPU for ever.
constexpr uint64_t kWaitLimitNs = 4'000'000'000;

// "mbarrier.test_wait / mbarrier.try_wait": until the phase of that parity has completed.
__device__ inline void Wait(uint32_t barrier, int parity) {
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

// "prefetch.tensormap": of a parameter of the kernel.
__device__ inline void Prefetch(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// "cp.async.bulk.tensor", mode im2col: pixels shifted by a tap.
__device__ inline void LoadPixels(uint32_t to, const CUtensorMap& map, const PixelBox& box, const Step& step,
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
__device__ inline void LoadWeights(uint32_t to, const CUtensorMap& map, const WeightBox& box,
                                   uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4}], [%5];"
      :
      : "r"(to), "l"(&map), "r"(box.channel), "r"(box.tap), "r"(box.filter), "r"(barrier)
      : "memory");
}

// "wgmma.fence": required before the first wgmma that uses these registers.
__device__ inline void BeginMultiply() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
// "wgmma.commit_group"
__device__ inline void CommitMultiply() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// "wgmma.wait_group"
template <int kPending>
__device__ void WaitForMultiply() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// "wgmma.mma_async": acc += a b for 64 rows and a slice of depth. No negation. a has contiguous depth, or
// contiguous rows if kRowsOfA; b has contiguous depth, or contiguous columns if kColumnsOfB. Any multiple
// of 8 columns is possible.

#define DEEPER_BLOCK(i) "+f"(acc[0][i][0]), "+f"(acc[0][i][1]), "+f"(acc[0][i][2]), "+f"(acc[0][i][3])
// Operands and their names for N columns, each list an extension of the one before.
#define DEEPER_NAMES_16 "%0, %1, %2, %3, %4, %5, %6, %7"
#define DEEPER_BLOCKS_16 DEEPER_BLOCK(0), DEEPER_BLOCK(1)
#define DEEPER_NAMES_24 DEEPER_NAMES_16 ", %8, %9, %10, %11"
#define DEEPER_BLOCKS_24 DEEPER_BLOCKS_16, DEEPER_BLOCK(2)
#define DEEPER_NAMES_32 DEEPER_NAMES_24 ", %12, %13, %14, %15"
#define DEEPER_BLOCKS_32 DEEPER_BLOCKS_24, DEEPER_BLOCK(3)
#define DEEPER_NAMES_48 DEEPER_NAMES_32 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define DEEPER_BLOCKS_48 DEEPER_BLOCKS_32, DEEPER_BLOCK(4), DEEPER_BLOCK(5)
#define DEEPER_NAMES_64 DEEPER_NAMES_48 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define DEEPER_BLOCKS_64 DEEPER_BLOCKS_48, DEEPER_BLOCK(6), DEEPER_BLOCK(7)
#define DEEPER_NAMES_72 DEEPER_NAMES_64 ", %32, %33, %34, %35"
#define DEEPER_BLOCKS_72 DEEPER_BLOCKS_64, DEEPER_BLOCK(8)
#define DEEPER_NAMES_80 DEEPER_NAMES_72 ", %36, %37, %38, %39"
#define DEEPER_BLOCKS_80 DEEPER_BLOCKS_72, DEEPER_BLOCK(9)
#define DEEPER_NAMES_96 DEEPER_NAMES_80 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define DEEPER_BLOCKS_96 DEEPER_BLOCKS_80, DEEPER_BLOCK(10), DEEPER_BLOCK(11)
#define DEEPER_NAMES_112 DEEPER_NAMES_96 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define DEEPER_BLOCKS_112 DEEPER_BLOCKS_96, DEEPER_BLOCK(12), DEEPER_BLOCK(13)
#define DEEPER_NAMES_128 DEEPER_NAMES_112 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define DEEPER_BLOCKS_128 DEEPER_BLOCKS_112, DEEPER_BLOCK(14), DEEPER_BLOCK(15)
#define DEEPER_NAMES_144 DEEPER_NAMES_128 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define DEEPER_BLOCKS_144 DEEPER_BLOCKS_128, DEEPER_BLOCK(16), DEEPER_BLOCK(17)
#define DEEPER_NAMES_160 DEEPER_NAMES_144 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define DEEPER_BLOCKS_160 DEEPER_BLOCKS_144, DEEPER_BLOCK(18), DEEPER_BLOCK(19)
#define DEEPER_NAMES_192 \
  DEEPER_NAMES_160 ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define DEEPER_BLOCKS_192 \
  DEEPER_BLOCKS_160, DEEPER_BLOCK(20), DEEPER_BLOCK(21), DEEPER_BLOCK(22), DEEPER_BLOCK(23)
#define DEEPER_NAMES_208 DEEPER_NAMES_192 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define DEEPER_BLOCKS_208 DEEPER_BLOCKS_192, DEEPER_BLOCK(24), DEEPER_BLOCK(25)
#define DEEPER_NAMES_224 DEEPER_NAMES_208 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define DEEPER_BLOCKS_224 DEEPER_BLOCKS_208, DEEPER_BLOCK(26), DEEPER_BLOCK(27)

#define DEEPER_MULTIPLY(columns, a_name, b_name, a_side, b_side)                                           \
  template <bool kRowsOfA, bool kColumnsOfB>                                                               \
  __device__ void Multiply(float(&acc)[1][columns / 8][4], uint64_t a, uint64_t b) {                       \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32.bf16.bf16 {" DEEPER_NAMES_##columns \
                 "}, %" #a_name ", %" #b_name ", 1, 1, 1, %" #a_side ", %" #b_side ";"                     \
                 : DEEPER_BLOCKS_##columns                                                                 \
                 : "l"(a), "l"(b), "n"(kRowsOfA), "n"(kColumnsOfB));                                       \
  }
DEEPER_MULTIPLY(16, 8, 9, 10, 11)
DEEPER_MULTIPLY(24, 12, 13, 14, 15)
DEEPER_MULTIPLY(32, 16, 17, 18, 19)
DEEPER_MULTIPLY(48, 24, 25, 26, 27)
DEEPER_MULTIPLY(64, 32, 33, 34, 35)
DEEPER_MULTIPLY(72, 36, 37, 38, 39)
DEEPER_MULTIPLY(80, 40, 41, 42, 43)
DEEPER_MULTIPLY(96, 48, 49, 50, 51)
DEEPER_MULTIPLY(112, 56, 57, 58, 59)
DEEPER_MULTIPLY(128, 64, 65, 66, 67)
DEEPER_MULTIPLY(144, 72, 73, 74, 75)
DEEPER_MULTIPLY(160, 80, 81, 82, 83)
DEEPER_MULTIPLY(192, 96, 97, 98, 99)
DEEPER_MULTIPLY(208, 104, 105, 106, 107)
DEEPER_MULTIPLY(224, 112, 113, 114, 115)
#undef DEEPER_MULTIPLY

// "setmaxnreg": registers of each thread from here on. All warps of a warpgroup execute it.
template <int kRegisters>
__device__ void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ void ReturnRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// "barrier": waits for all threads of the warpgroups that multiply, not for the lane that loads. Barrier 1;
// __syncthreads() uses barrier 0.
template <int kThreads>
__device__ void SynchronizeWarpgroups() {
  asm volatile("barrier.cta.sync 1, %0;" ::"n"(kThreads) : "memory");
}

// Prevents that sums are read before a wait.
__device__ inline void Settle(float (&block)[4]) {
  asm volatile("" : "+f"(block[0]), "+f"(block[1]), "+f"(block[2]), "+f"(block[3])::"memory");
}

}  // namespace deeper::conv
