// A convolution whose window reaches past the image on both sides, as in the last modules of a GoogLeNet on
// small images: rows and columns of taps at its edge only ever see padding. A 5x5 on a 2x2 map is the 3x3 in
// its middle, a 3x3 on a 1x1 map is a 1x1. oneDNN has only reference code for such windows, or multiplies by
// zeros; so the middle is cut out and convolved with.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/base/op.h"
#include "kernels/ops/conv2d/conv2d.h"

namespace deeper {

class MiddleTaps {
 public:
  MiddleTaps() = default;  // no idle taps: copies nothing
  MiddleTaps(const Conv2dParams& params, const Shape& x, const ParamSpec& weight, const ParamLayout& layout);

  int64_t idle() const { return idle_; }               // taps left out at each edge
  const ParamSpec& weight() const { return weight_; }  // the middle as a parameter of its own
  const ParamLayout& layout() const { return layout_; }
  // Of a copy of the middle, rounded up to 64; 0 if there are no idle taps.
  size_t bytes() const {
    return idle_ == 0 ? 0 : (static_cast<size_t>(layout_.stored_elements) * sizeof(float) + 63) / 64 * 64;
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
