// What our kernels execute, counted in their machine code, for predictions of their time on a GPU that need
// not be present (trainer/scaling/kernel_model.h).
#pragma once

#include <cstdint>
#include <string_view>
#include <typeinfo>

namespace deeper {

// Of a warp, in code for compute capability 9.0. tests/kernels/cuda/sass/sass.py says how these are counted.
// Code without loops, and loops other than the largest one, count once.
struct KernelCost {
  const char* name;                         // as in "MaxPool<bf16, 8>": without namespaces
  int cycles, waits;                        // of a scheduler; for loads, one after the other
  int loop_cycles, loop_waits, loop_loads;  // of the largest loop, per iteration as compiled
  int warps_on_sm;                          // as far as registers allow
};

// nullptr: not known.
const KernelCost* FindKernelCost(std::string_view name);

// What a launch executes.
struct KernelWork {
  int64_t warps = 0;          // 0: not known, like the work of libraries
  double cycles = 0;          // of a scheduler, per warp
  double waits = 0;           // per warp
  int warps_on_sm = 0;        // at once
  int64_t l2_bytes = 0;       // read from the L2 cache; 0: not counted
  int64_t macs = 0;           // including those that fill tiles; 0: as the problem says
  int64_t partial_bytes = 0;  // sums that a kernel writes and the next one adds
  int kernels = 1;            // one after the other
  int early = 0;              // those of them that start early (early_start.h)
};

// A kernel with `threads` threads. `iterations` of its largest loop load `loads` times each from global
// memory. 0 loads: nvcc does not unroll the loop. Not known if the kernel is not in the table.
KernelWork WorkOf(std::string_view name, int64_t threads, double iterations, int loads = 0);

// The name of a functor (cuda_for_each.h) in the table.
std::string_view KernelNameOf(const std::type_info& type);

}  // namespace deeper
