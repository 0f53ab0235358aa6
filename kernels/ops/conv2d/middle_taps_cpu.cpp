#include "kernels/ops/conv2d/middle_taps_cpu.h"

#include <algorithm>

namespace deeper {
namespace {

// Calls visit(first element in the whole, first element in the middle, count) for every row of a tap's block
// of weights.
template <class Visit>
void ForEachTap(const ParamLayout& middle, int64_t kernel, int64_t idle, const Visit& visit) {
  const int64_t inner = kernel - 2 * idle, count = middle.block * middle.block;
  const int64_t tiles = middle.stored_elements / (inner * inner * count);
  for (int64_t tile = 0; tile < tiles; ++tile) {
    for (int64_t tap = 0; tap < inner * inner; ++tap) {
      const int64_t row = tap / inner + idle, column = tap % inner + idle;
      visit(((tile * kernel + row) * kernel + column) * count, (tile * inner * inner + tap) * count, count);
    }
  }
}

}  // namespace

MiddleTaps::MiddleTaps(const Conv2dParams& params, const Shape& x, const ParamSpec& weight,
                       const ParamLayout& layout)
    : weight_(weight), kernel_(params.kernel) {
  const bool same = params.stride == 1 && 2 * params.pad + 1 == params.kernel;
  if (same) idle_ = std::max<int64_t>(0, params.pad - (std::max(x.h, x.w) - 1));
  weight_.shape[2] = weight_.shape[3] = kernel_ - 2 * idle_;
  layout_ = MakeParamLayout(weight_, layout.block);
}

void MiddleTaps::CopyOut(const float* whole, float* middle) const {
  if (idle_ == 0) return;
  ForEachTap(layout_, kernel_, idle_,
             [&](int64_t w, int64_t m, int64_t n) { std::copy_n(whole + w, n, middle + m); });
}

void MiddleTaps::CopyIn(const float* middle, float* whole) const {
  if (idle_ == 0) return;
  const int64_t inner = kernel_ - 2 * idle_;
  std::fill_n(whole, layout_.stored_elements / (inner * inner) * kernel_ * kernel_, 0.0f);
  ForEachTap(layout_, kernel_, idle_,
             [&](int64_t w, int64_t m, int64_t n) { std::copy_n(middle + m, n, whole + w); });
}

}  // namespace deeper
