#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/check.h"
#include "kernels/parallel.h"
#include "kernels/softmax_loss.h"

namespace deeper {
namespace {

struct RowResult {
  double loss = 0;
  int64_t ahead = 0;  // classes that rank before the label
};

// A NaN ranks everything before the label, so that a diverged network does not count as accurate.
template <class T>
int64_t CountAhead(const T* logits, int64_t classes, int64_t label) {
  const float own = ToFloat(logits[label]);
  int64_t ahead = 0;
  for (int64_t c = 0; c < label; ++c) ahead += !(ToFloat(logits[c]) < own);
  for (int64_t c = label + 1; c < classes; ++c) ahead += !(ToFloat(logits[c]) <= own);
  return ahead;
}

template <class T>
RowResult LossOfRow(const T* logits, int64_t classes, int64_t label, float scale, T* dlogits) {
  float max = ToFloat(logits[0]);
  for (int64_t c = 1; c < classes; ++c) max = std::max(max, ToFloat(logits[c]));
  double sum = 0;
  for (int64_t c = 0; c < classes; ++c) sum += std::exp(double{ToFloat(logits[c])} - max);
  if (dlogits != nullptr) {
    for (int64_t c = 0; c < classes; ++c) {
      const double softmax = std::exp(double{ToFloat(logits[c])} - max) / sum;
      dlogits[c] = FromFloat<T>(static_cast<float>(scale * (softmax - (c == label ? 1 : 0))));
    }
  }
  return {std::log(sum) - (double{ToFloat(logits[label])} - max), CountAhead(logits, classes, label)};
}

template <class T>
HeadResult Loss(const Tensor& logits, const int32_t* labels, float scale, T* dlogits) {
  const int64_t rows = logits.desc.shape.n, classes = logits.desc.shape.c;
  std::vector<RowResult> results(static_cast<size_t>(rows));
  ParallelFor(rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      T* const gradient = dlogits == nullptr ? nullptr : dlogits + n * classes;
      const int32_t label = labels[n];
      DEEPER_CHECK(label >= -1 && label < classes,
                   "label " + std::to_string(label) + " of " + std::to_string(classes) + " classes");
      if (label >= 0) {
        results[n] = LossOfRow(logits.as<const T>() + n * classes, classes, label, scale, gradient);
      } else if (gradient != nullptr) {
        std::fill_n(gradient, classes, T{});
      }
    }
  });
  HeadResult total;
  for (int64_t n = 0; n < rows; ++n) {
    if (labels[n] < 0) continue;
    ++total.rows;
    total.loss_sum += results[n].loss;
    total.top1 += results[n].ahead < 1;
    total.top5 += results[n].ahead < 5;
  }
  return total;
}

}  // namespace

void SoftmaxLossCpu(Device&, const SoftmaxLossArguments& a) {
  const float scale = a.weight * a.step->loss_scale;
  *a.result = a.logits.desc.dtype == DType::kBf16
                  ? Loss(a.logits, a.labels, scale, static_cast<bf16*>(a.dlogits))
                  : Loss(a.logits, a.labels, scale, static_cast<float*>(a.dlogits));
}

size_t SoftmaxLossWorkspaceBytesCpu(const TensorDesc&) {
  return 0;
}

}  // namespace deeper
