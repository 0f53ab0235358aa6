// Checks for calls of CUDA and its libraries inside a step. A failure is unrecoverable; the report names the
// call and the error. Also owners of CUDA events and streams.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <string>

#include "kernels/base/check.h"

#define DEEPER_CUDA_CHECK(call)                                                                   \
  do {                                                                                            \
    const cudaError_t deeper_error = (call);                                                      \
    if (deeper_error != cudaSuccess) [[unlikely]] {                                               \
      ::deeper::CheckFailed(                                                                      \
          __FILE__, __LINE__, #call,                                                              \
          std::string(cudaGetErrorName(deeper_error)) + ": " + cudaGetErrorString(deeper_error)); \
    }                                                                                             \
  } while (false)

namespace deeper {

struct DestroyCuda {
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
  void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};
using CudaEvent = std::unique_ptr<CUevent_st, DestroyCuda>;
using CudaStream = std::unique_ptr<CUstream_st, DestroyCuda>;

inline CudaEvent MakeCudaEvent(unsigned int flags = cudaEventDisableTiming) {
  cudaEvent_t event = nullptr;
  DEEPER_CUDA_CHECK(cudaEventCreateWithFlags(&event, flags));
  return CudaEvent(event);
}

inline CudaStream MakeCudaStream() {
  cudaStream_t stream = nullptr;
  DEEPER_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return CudaStream(stream);
}

}  // namespace deeper
