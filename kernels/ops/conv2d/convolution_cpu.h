// A bare convolution on the CPU: its passes over fixed memory. The weights lie in fp32 in the stored format;
// a pass that wants another (bf16, or transposed for the gradient of x) converts them in scratch memory each
// time, since they change every step.
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
  // Overwrites the gradients of the parameters, and dx if it was asked for.
  void Backward() const;

 private:
  // One primitive and the change of format of its weights, before it or, for their gradient, after it.
  struct Pass {
    onednn::Primitive run, change;
    size_t copy_bytes = 0;
  };

  Pass forward_, backward_data_, backward_weights_;
  size_t workspace_bytes_ = 0;
};

// A convolution whose window reaches past the image on both sides, as in the last modules of a GoogLeNet on
// small images: rows and columns of taps at its edge only ever see padding. A 5x5 on a 2x2 map is the 3x3 in
// its middle, a 3x3 on a 1x1 map is a 1x1. oneDNN has only reference code for such windows, or multiplies by
// zeros; so the middle is cut out and convolved with.
class MiddleTaps {
 public:
  MiddleTaps() = default;  // no idle taps: copies nothing
  MiddleTaps(const Conv2dParams& params, const Shape& x, const ParamSpec& weight, const ParamLayout& layout);

  int64_t idle() const { return idle_; }               // taps left out at each edge
  const ParamSpec& weight() const { return weight_; }  // the middle as a parameter of its own
  const ParamLayout& layout() const { return layout_; }
  // Of a copy of the middle, rounded up to 64; 0 if there are no idle taps.
  size_t bytes() const {
    return idle_ == 0
               ? 0
               : RoundUp(static_cast<size_t>(layout_.stored_elements) * sizeof(float), onednn::kAlignment);
  }

  // whole: as the op stores the weight; middle: layout().stored_elements floats.
  void CopyOut(const float* whole, float* middle) const;
  // The other taps of `whole` become 0: that is their gradient.
  void CopyIn(const float* middle, float* whole) const;

 private:
  ParamSpec weight_;
  ParamLayout layout_;
  int64_t kernel_ = 0, idle_ = 0;  // of the whole window
};

}  // namespace deeper
