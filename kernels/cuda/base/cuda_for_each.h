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

#include <bit>
#include <cstdint>
#include <typeinfo>

#include "kernels/base/bf16.h"
#include "kernels/base/cuda_check.h"
#include "kernels/base/host_device.h"
#include "kernels/base/parallel.h"
#include "kernels/cuda/base/bf16_pairs.h"
#include "kernels/cuda/base/codegen.h"
#include "kernels/cuda/base/cuda_device.h"
#include "kernels/cuda/base/cuda_launch.h"
#include "kernels/cuda/base/divider.h"
#include "kernels/cuda/base/kernel_cost.h"

namespace deeper {

#ifdef __CUDA_ARCH__
// One instruction: PTX ISA, "cvt". The bits of a NaN are others than on the host.
template <>
DEEPER_HD inline bf16 FromFloat<bf16>(float x) {
  uint16_t bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return {bits};
}
#endif

// What a launch executes. A functor with a loop says how often it runs (Iterations) and, if nvcc may unroll
// it, how many loads an iteration has (kLoads).
template <class Body>
KernelWork WorkOf(int64_t count, const Body& body) {
  double iterations = 1;
  int loads = 0;
  if constexpr (requires { body.Iterations(); }) iterations = static_cast<double>(body.Iterations());
  if constexpr (requires { Body::kLoads; }) loads = Body::kLoads;
  return WorkOf(KernelNameOf(typeid(Body)), count, iterations, loads);
}

template <class Body>
void ForEach(CudaDevice& device, const Launch& launch, int64_t count, const Body& body) {
  if (count <= 0) return;
  if (device.mode() == CudaDevice::Mode::kPlan) device.Expect(WorkOf(count, body));
  if (!device.Begin(launch)) return;
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
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
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

// The words of a pack of bf16, and the pack of such words. nvcc needs fewer instructions than for
// std::bit_cast.
template <int N>
using Pairs = Pack<uint32_t, N / 2>;
template <class T, int N>
DEEPER_HD Pairs<N> PairsOf(const Pack<T, N>& pack) {
#ifdef __CUDA_ARCH__
  return *reinterpret_cast<const Pairs<N>*>(&pack);
#else
  return std::bit_cast<Pairs<N> >(pack);
#endif
}
template <class T, int N>
DEEPER_HD Pack<T, N> PackOf(const Pairs<N>& pairs) {
#ifdef __CUDA_ARCH__
  return *reinterpret_cast<const Pack<T, N>*>(&pairs);
#else
  return std::bit_cast<Pack<T, N> >(pairs);
#endif
}

// The elements as fp32. Reads words, since a GPU has no registers of 16 bits.
template <class T, int N>
DEEPER_HD Pack<float, N> Floats(const Pack<T, N>& pack) {
  Pack<float, N> floats;
  if constexpr (sizeof(T) == 2 && N % 2 == 0) {
    const auto pairs = PairsOf(pack);
    for (int j = 0; j < N; j += 2) {
      floats.v[j] = LowOf(pairs.v[j / 2]);
      floats.v[j + 1] = HighOf(pairs.v[j / 2]);
    }
  } else {
    for (int j = 0; j < N; ++j) floats.v[j] = ToFloat(pack.v[j]);
  }
  return floats;
}

template <class T, int N>
DEEPER_HD Pack<T, N> Rounded(const float (&values)[N]) {
  if constexpr (sizeof(T) == 2 && N % 2 == 0) {
    Pairs<N> pairs;
    for (int j = 0; j < N; j += 2) pairs.v[j / 2] = RoundedPair(values[j], values[j + 1]);
    return PackOf<T, N>(pairs);
  } else {
    Pack<T, N> pack;
    for (int j = 0; j < N; ++j) pack.v[j] = FromFloat<T>(values[j]);
    return pack;
  }
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
