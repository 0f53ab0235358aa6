// A plan of naive loops as a library's call enqueues it, in two launches. The first leaves a mark in the
// workspace, the second wants to find it: a workspace that two plans use at a time shows.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/base/cuda_device.h"
#include "tests/kernels/fake_cuda/fake_cuda.h"
#include "tests/kernels/fake_cuda/memory.h"
#include "tests/kernels/fake_cuda/runtime.h"

namespace deeper::fake_cuda {

constexpr size_t kNaiveWorkspaceBytes = 1024;

inline cudaError_t LaunchNaive(const std::string& name, const std::shared_ptr<CudaPlan>& plan,
                               const PlanOperands& operands, cudaStream_t stream) {
  static std::atomic<uint64_t> last_mark = 0;
  const uint64_t number = ++last_mark;
  auto* const mark = static_cast<uint64_t*>(operands.workspace);
  const cudaError_t error = Launch(stream, absl::StrCat(name, " (first half)"), [=] { *mark = number; });
  if (error != cudaSuccess) return error;
  return Launch(stream, name, [=] {
    if (*mark != number) Fail(absl::StrCat(name, ": something else wrote to its workspace"));
    plan->Run(operands);
  });
}

// Whether a script has this call of a library fail.
inline bool Fails(const char* call) {
  Runtime& runtime = Runtime::Get();
  std::unique_lock lock(runtime.mutex);
  return runtime.Enter(lock, call) != cudaSuccess;
}

}  // namespace deeper::fake_cuda
