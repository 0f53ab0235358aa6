#include <algorithm>
#include <cmath>

#include "kernels/base/bf16.h"
#include "kernels/base/parallel.h"
#include "kernels/cpu/profile.h"
#include "kernels/ops/softmax_loss.h"

namespace deeper {
namespace {

struct RowResult {
  double loss = 0;
  int64_t ahead = 0;  // classes that rank before the label
};

// A NaN ranks all other classes before the label, so that a diverged network does not count as accurate.
template <class T>
int64_t CountAhead(const T* logits, int64_t classes, int64_t label) {
  const float own = ToFloat(logits[label]);
  int64_t ahead = 0;
  for (int64_t c = 0; c < label; ++c) ahead += !(ToFloat(logits[c]) < own);
  for (int64_t c = label + 1; c < classes; ++c) ahead += !(ToFloat(logits[c]) <= own);
  return ahead;
}

// The target of a row.
struct Target {
  int32_t label = -1, partner = -1;
  float partner_weight = 0, smoothing = 0;

  double Of(int64_t c, int64_t classes) const {
    const double hard = (c == label ? 1 - double{partner_weight} : 0) + (c == partner ? partner_weight : 0);
    return (1 - double{smoothing}) * hard + double{smoothing} / static_cast<double>(classes);
  }
};

Target TargetOf(const SoftmaxLossArguments& a, int64_t row) {
  Target target{a.labels[row], a.labels[row], 0, a.smoothing};
  if (a.partner_labels == nullptr) return target;
  target.partner = a.partner_labels[row];
  target.partner_weight = a.partner_weights[row];
  return target;
}

template <class T>
RowResult LossOfRow(const T* logits, int64_t classes, const Target& target, float scale, T* dlogits) {
  float max = ToFloat(logits[0]);
  for (int64_t c = 1; c < classes; ++c) max = std::max(max, ToFloat(logits[c]));
  double sum = 0;
  for (int64_t c = 0; c < classes; ++c) sum += std::exp(double{ToFloat(logits[c])} - max);
  double cross = 0;  // sum of target * (logit - max)
  for (int64_t c = 0; c < classes; ++c) {
    const double wanted = target.Of(c, classes), logit = double{ToFloat(logits[c])} - max;
    if (wanted != 0) cross += wanted * logit;
    if (dlogits != nullptr)
      dlogits[c] = FromFloat<T>(static_cast<float>(scale * (std::exp(logit) / sum - wanted)));
  }
  return {std::log(sum) - cross, CountAhead(logits, classes, target.label)};
}

void CheckLabel(int32_t label, int64_t classes) {
  DEEPER_CHECK(label >= -1 && label < classes,
               "label " + std::to_string(label) + " of " + std::to_string(classes) + " classes");
}

template <class T>
HeadResult Loss(const SoftmaxLossArguments& a) {
  const int64_t rows = a.logits.desc.shape.n, classes = a.logits.desc.shape.c;
  const float scale = a.weight * a.step->loss_scale;
  std::vector<RowResult> results(static_cast<size_t>(rows));
  ParallelFor(rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      T* const gradient = a.dlogits == nullptr ? nullptr : static_cast<T*>(a.dlogits) + n * classes;
      const Target target = TargetOf(a, n);
      CheckLabel(target.label, classes);
      CheckLabel(target.partner, classes);
      if (target.label >= 0) {
        results[n] = LossOfRow(a.logits.as<const T>() + n * classes, classes, target, scale, gradient);
      } else if (gradient != nullptr) {
        std::fill_n(gradient, classes, T{});
      }
    }
  });
  HeadResult total;
  for (int64_t n = 0; n < rows; ++n) {
    if (a.labels[n] < 0) continue;
    ++total.rows;
    total.loss_sum += results[n].loss;
    total.top1 += results[n].ahead < 1;
    total.top5 += results[n].ahead < 5;
  }
  return total;
}

}  // namespace

void SoftmaxLossCpu(Device&, const SoftmaxLossArguments& a) {
  a.Check();
  Timed({"loss", static_cast<int64_t>(2 * a.logits.desc.bytes())},
        [&] { *a.result = a.logits.desc.dtype == DType::kBf16 ? Loss<bf16>(a) : Loss<float>(a); });
}

size_t SoftmaxLossWorkspaceBytesCpu(Device&, const TensorDesc&) {
  return 0;
}

}  // namespace deeper
