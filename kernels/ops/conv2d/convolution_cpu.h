// A bare convolution on the CPU, with passes bound to fixed memory. The weights are stored in fp32. A pass
// that needs another format (bf16, or transposed for the gradient of x) converts them in scratch memory on
// every call, since they change every step.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/cpu/onednn.h"
#include "kernels/ops/conv2d/conv2d.h"

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

  size_t workspace_bytes() const { return workspace_bytes_; }
  void Bind(const Memory& memory);
  void Forward() const;
  // Overwrites the gradients of the parameters, and dx if it was requested.
  void Backward() const;

 private:
  // One primitive and the format conversion of its weights (before it) or of their gradient (after it).
  struct Pass {
    onednn::Primitive run, change;
    size_t copy_bytes = 0;
  };

  Pass forward_, backward_data_, backward_weights_;
  size_t workspace_bytes_ = 0;
};

// A convolution whose window exceeds the image on both sides, as in the last modules of GoogLeNet on small
// images. Its outer rows and columns of taps only see padding: on a 2x2 map a 5x5 equals the 3x3 in its
// middle, on a 1x1 map a 3x3 equals a 1x1. For such windows oneDNN uses reference code or multiplies by
// zeros. This class extracts the middle and convolves with it.
class MiddleTaps {
 public:
  MiddleTaps() = default;  // no idle taps: copies nothing
  MiddleTaps(const Conv2dParams& params, const Shape& x, const ParamSpec& weight, const ParamLayout& layout);

  int64_t idle() const { return idle_; }               // taps omitted at each edge
  const ParamSpec& weight() const { return weight_; }  // the middle as a separate parameter
  const ParamLayout& layout() const { return layout_; }
  // Bytes of a copy of the middle, rounded up to 64; 0 without idle taps.
  size_t bytes() const {
    return idle_ == 0
               ? 0
               : RoundUp(static_cast<size_t>(layout_.stored_elements) * sizeof(float), onednn::kAlignment);
  }

  // whole: the weight as the op stores it; middle: layout().stored_elements floats.
  void CopyOut(const float* whole, float* middle) const;
  // Sets the other taps of `whole` to 0, which is their gradient.
  void CopyIn(const float* middle, float* whole) const;

 private:
  ParamSpec weight_;
  ParamLayout layout_;
  int64_t kernel_ = 0, idle_ = 0;  // of the whole window
};

}  // namespace deeper
