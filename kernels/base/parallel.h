// Parallel loops of the CPU backend.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#ifdef __SANITIZE_THREAD__
#include <thread>
#include <vector>
#endif

// Compiles a function once per instruction set and selects one at program start, so that a portable binary
// uses AVX-512 where available. Only for leaf loops: an OpenMP region or a lambda inside would not inherit
// the target. Off under sanitizers, whose runtimes are not ready at the time of selection.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define DEEPER_SIMD __attribute__((target_clones("arch=skylake-avx512", "avx2", "default")))
#else
#define DEEPER_SIMD
#endif

namespace deeper {

// Calls body(begin, end) on contiguous parts of [0, count), one part per thread. All parts but the last are
// multiples of `grain`. The split depends only on `count`, `grain` and the number of threads.
template <class Body>
void ParallelFor(int64_t count, int64_t grain, const Body& body) {
  const int64_t chunks = (count + grain - 1) / grain;
  if (chunks <= 1 || omp_get_max_threads() == 1) {
    if (count > 0) body(int64_t{0}, count);
    return;
  }
  const auto part = [&](int64_t self, int64_t threads) {
    const int64_t begin = chunks * self / threads * grain;
    const int64_t end = std::min(count, chunks * (self + 1) / threads * grain);
    if (begin < end) body(begin, end);
  };
#ifdef __SANITIZE_THREAD__  // TSan does not see libgomp's barriers, so use std::jthread
  std::vector<std::jthread> threads;
  for (int self = 0; self < omp_get_max_threads(); ++self)
    threads.emplace_back(part, self, omp_get_max_threads());
#else
#pragma omp parallel
  part(omp_get_thread_num(), omp_get_num_threads());
#endif
}

}  // namespace deeper
