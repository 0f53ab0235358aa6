// Launches of deeper's kernels. For .cu files only.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "kernels/cuda/base/early_start.h"

namespace deeper {

// The first statement of every kernel. One that started early waits here until the previous kernel has ended
// and its writes are visible. When all blocks have come here, the next kernel may start early. PTX ISA,
// "griddepcontrol".
__device__ inline void AwaitPreviousKernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\n\tgriddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Whether AwaitPreviousKernel waits, in code of this build for compute capability 9.0 and later. A build for
// older GPUs runs on newer ones too, but has no such code.
constexpr bool kCanWaitForKernels = std::max({__CUDA_ARCH_LIST__}) >= 900;

template <class... Parameters>
cudaError_t LaunchKernel(void (*kernel)(Parameters...), dim3 blocks, dim3 threads, size_t shared_bytes,
                         cudaStream_t stream, const std::type_identity_t<Parameters>&... arguments) {
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = blocks;
  config.blockDim = threads;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = kCanWaitForKernels && MayStartEarly(stream) ? 1 : 0;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, arguments...);
  if (error == cudaSuccess) KernelLaunched(stream);
  return error;
}

}  // namespace deeper
