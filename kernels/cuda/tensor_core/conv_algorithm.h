// The common part of the algorithms of conv_tensor_core.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "kernels/base/status.h"
#include "kernels/cuda/plans/cuda_algorithm.h"
#include "kernels/cuda/tensor_core/conv_tensor_core.h"
#include "kernels/cuda/tensor_core/conv_tiling.h"

namespace deeper::tensor_core {

class KernelAlgorithm : public Algorithm {
 public:
  KernelAlgorithm(std::string name, const ConvolutionProblem& problem, int across = 1)
      : problem_(problem), gemm_(WithTaps(GemmOf(problem), across)), name_(std::move(name)) {}

  bool needs_check() const override { return true; }
  absl::StatusOr<std::string> Serialize() const override { return name_; }

  absl::Status Enqueue(const PlanOperands& o, Stream stream) override {
    if (!IsAligned(o.a) || !IsAligned(o.b) || !IsAligned(o.d) || !IsAligned(o.mask) || !IsAligned(o.argmax) ||
        !IsAligned(o.workspace)) {
      return InvalidArgument(name_, ": operands not aligned to 16 bytes");
    }
    const cudaError_t error = Launch(o, static_cast<cudaStream_t>(stream.native));
    if (error == cudaSuccess) return absl::OkStatus();
    return Internal(name_, ": ", cudaGetErrorString(error));
  }

 protected:
  virtual cudaError_t Launch(const PlanOperands& operands, cudaStream_t stream) = 0;

  const ConvolutionProblem problem_;
  const conv::Gemm gemm_;

 private:
  static bool IsAligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }
  static conv::Gemm WithTaps(conv::Gemm gemm, int across) {
    gemm.across = across;
    return gemm;
  }

  const std::string name_;
};

// What `blocks` blocks execute that run `steps` steps each, with 8 warps that multiply.
inline KernelWork StepsOf(const std::string& code, int64_t blocks, int steps, int64_t l2_bytes,
                          int64_t macs) {
  constexpr int kBlockThreads = 256;
  KernelWork work = WorkOf(code, blocks * kBlockThreads, steps);
  work.waits = 0;  // stages are filled while others are multiplied
  work.l2_bytes = blocks * steps * l2_bytes;
  work.macs = blocks * steps * macs;
  return work;
}

// The gradient of the weights of a 3x3 convolution (conv_dw_sm90.cu).
std::unique_ptr<Algorithm> MakeWeightGradient(std::string name, int tile_channels,
                                              const ConvolutionProblem& problem);

}  // namespace deeper::tensor_core
