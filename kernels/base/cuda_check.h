// Faults of CUDA and its libraries on the way: unrecoverable, reported with the call and what it said.
#pragma once

#include <cuda_runtime_api.h>

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
