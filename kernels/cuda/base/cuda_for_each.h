// The form of all custom kernels except convolutions (conv_tiling.h): a functor called with each index of a
// range, in any order. For .cu files only.
//
//   struct Scale {
//     float factor;
//     float* x;
//     DEEPER_HD void operator()(int64_t i) const { x[i] *= factor; }
//   };
//   ForEach(device, {"scale", 8 * count}, count, Scale{factor, x});
//
// Neighbouring indices run in the same warp and should access neighbouring memory. Kernels use no shared
// memory and no atomics. A sum has two stages, partial sums over tiles and then their sum, in a fixed order,
// so that the same input always gives the same bits. CI runs the same functors on the host.
#pragma once

#include <cstdint>

#include "kernels/base/bf16.h"
#include "kernels/base/cuda_check.h"
#include "kernels/base/host_device.h"
#include "kernels/base/parallel.h"
#include "kernels/cuda/base/cuda_device.h"
#include "kernels/cuda/base/cuda_launch.h"

namespace deeper {

template <class Body>
void ForEach(CudaDevice& device, const Launch& launch, int64_t count, const Body& body) {
  if (count <= 0 || !device.Begin(launch)) return;
  if (device.mode() == CudaDevice::Mode::kHost) {
    ParallelFor(count, 256, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) body(i);
    });
  } else {
    LaunchForEach(count, body, static_cast<cudaStream_t>(device.stream().native));
    DEEPER_CUDA_CHECK(cudaGetLastError());
  }
  device.End();
}

// N neighbouring elements that move as one unit.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T v[N];
};
template <class T, int N>
DEEPER_HD Pack<T, N> LoadPack(const T* from) {
  return *reinterpret_cast<const Pack<T, N>*>(from);
}
template <class T, int N>
DEEPER_HD void StorePack(T* to, const Pack<T, N>& pack) {
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

template <class T, int N>
DEEPER_HD Pack<T, N> Rounded(const float (&values)[N]) {
  Pack<T, N> pack;
  for (int j = 0; j < N; ++j) pack.v[j] = FromFloat<T>(values[j]);
  return pack;
}

// Calls make.operator()<T, N>() with the element type T. N is the number of elements in 16 bytes, or 1 if
// `channels` is not a multiple of that.
template <class Make>
void WithPacks(DType dtype, int64_t channels, const Make& make) {
  WithFloatType(dtype, [&]<class T>() {
    constexpr int kWide = 16 / sizeof(T);
    if (channels % kWide == 0) {
      make.template operator()<T, kWide>();
    } else {
      make.template operator()<T, 1>();
    }
  });
}

}  // namespace deeper
