// A bare convolution on the CPU: its passes over fixed memory. The weights lie in fp32 in the stored format;
// a pass that wants another (bf16, or transposed for the gradient of x) converts them in scratch memory each
// time, since they change every step.
#pragma once

#include "absl/status/statusor.h"
#include "kernels/cpu/onednn.h"

namespace deeper {

class ConvolutionCpu {
 public:
  struct Memory {
    void *x = nullptr, *y = nullptr, *dy = nullptr, *dx = nullptr;
    float *weight = nullptr, *bias = nullptr, *weight_grad = nullptr, *bias_grad = nullptr;
    std::byte* workspace = nullptr;
  };

  ConvolutionCpu() = default;
  static absl::StatusOr<ConvolutionCpu> Make(const onednn::Weighted& passes,
                                             const onednn::Desc& stored_weight);

  size_t workspace_bytes() const;
  void Bind(const Memory& memory);
  void Forward() const;
  // Overwrites the gradients of the parameters, and dx if it was asked for.
  void Backward() const;

 private:
  // One primitive and the change of format of its weights, before it or, for their gradient, after it.
  struct Pass {
    onednn::Primitive run, change;
    size_t copy_bytes = 0;

    size_t workspace_bytes() const;
  };

  Pass forward_, backward_data_, backward_weights_;
};

}  // namespace deeper
