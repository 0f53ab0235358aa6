// What the kernels for compute capability 9.0 have in common: the machines of conv_pipeline.h, in which each
// operation is an instruction (conv_wgmma.h), and the encoding of their tensor maps. For .cu files only.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/tensor_core/conv_pipeline.h"
#include "kernels/cuda/tensor_core/conv_tensor_map.h"
#include "kernels/cuda/tensor_core/conv_wgmma.h"

namespace deeper::conv {

constexpr int kMultiplyThreads = kMultiplyWarps * 32;
constexpr int kBlockThreads = kMultiplyThreads + 32;

struct BarrierMachine {
  __device__ void InitBarrier(uint32_t barrier, int arrivals) const { conv::InitBarrier(barrier, arrivals); }
  __device__ void PublishBarriers() const { conv::PublishBarriers(); }
  __device__ void Wait(uint32_t barrier, int parity) const { conv::Wait(barrier, parity); }
  __device__ void ArriveAndExpect(uint32_t barrier, int bytes) const {
    conv::ArriveAndExpect(barrier, bytes);
  }
};

// Without Multiply.
struct MultiplyMachine {
  bool leader;

  __device__ bool IsLeader() const { return leader; }
  __device__ void Wait(uint32_t barrier, int parity) const { conv::Wait(barrier, parity); }
  __device__ void Arrive(uint32_t barrier) const { conv::Arrive(barrier); }
  __device__ void BeginMultiply() const { conv::BeginMultiply(); }
  __device__ void CommitMultiply() const { conv::CommitMultiply(); }
  template <int kPending>
  __device__ void WaitForMultiply() const {
    conv::WaitForMultiply<kPending>();
  }
};

// Finds the driver's function at run time, since machines that build may have no driver.
template <class Function>
cudaError_t FindInDriver(const char* name, Function*& function) {
  constexpr unsigned int kSince = 12000;  // the CUDA version that introduced both
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion(name, &found, kSince, cudaEnableDefault, &result);
  function = reinterpret_cast<Function*>(found);
  if (error != cudaSuccess) return error;
  return result == cudaDriverEntryPointSuccess ? cudaSuccess : cudaErrorNotSupported;
}

inline cudaError_t ErrorOf(CUresult result) {
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

inline cudaError_t Encode(const Im2colMap& m, CUtensorMap* map) {
  decltype(cuTensorMapEncodeIm2col)* encode = nullptr;
  if (const cudaError_t error = FindInDriver("cuTensorMapEncodeIm2col", encode); error != cudaSuccess)
    return error;
  return ErrorOf(encode(map, m.type, m.kRank, m.address, m.sizes, m.strides, m.lower, m.upper, m.channels,
                        m.pixels, m.steps, m.interleave, m.swizzle, m.promotion, m.fill));
}

inline cudaError_t Encode(const TiledMap& m, CUtensorMap* map) {
  decltype(cuTensorMapEncodeTiled)* encode = nullptr;
  if (const cudaError_t error = FindInDriver("cuTensorMapEncodeTiled", encode); error != cudaSuccess)
    return error;
  return ErrorOf(encode(map, m.type, m.kRank, m.address, m.sizes, m.strides, m.box, m.steps, m.interleave,
                        m.swizzle, m.promotion, m.fill));
}

}  // namespace deeper::conv
