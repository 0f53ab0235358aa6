// In place of the real one: a launch is a closure in a queue of the fake CUDA, and every index runs on the
// host.
#pragma once

#include <cstdint>
#include <typeinfo>

#include "kernels/base/parallel.h"
#include "tests/kernels/fake_cuda/fake_cuda.h"

namespace deeper {

template <class Body>
cudaError_t FindForEachCode() {
  return fake_cuda::FindCode();
}

template <class Body>
void LaunchForEach(int64_t count, const Body& body, cudaStream_t stream) {
  fake_cuda::LaunchOwn(stream, typeid(Body).name(), [count, body] {
    ParallelFor(count, 256, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) body(i);
    });
  });
}

}  // namespace deeper
