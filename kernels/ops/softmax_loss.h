// Softmax cross-entropy of one classifier head. One pass computes the loss, accuracy counts and the gradient
// of the logits.
//
// logits: [N,K,1,1] kNchw, fp32 or bf16; labels: [N] int32, -1 for a padding row, which does not count. The
// loss of a row is -sum over classes of target * log softmax(logits), with the maximum subtracted first. The
// target is 1 at the label. In a mixed row it is 1 - w there and w at the partner's label. `smoothing` takes
// its share of the target and spreads it evenly over all K classes. All sums are double, in a fixed order:
// the same bits for any number of threads.
#pragma once

#include <cstdint>

#include "kernels/base/check.h"
#include "kernels/ops/backend.h"

namespace deeper {

struct HeadResult {
  double loss_sum = 0;  // over the counted rows
  int64_t rows = 0;
  int64_t top1 = 0;  // rows whose label (never the partner's) has the largest logit; equal logits count for
                     // the lowest class
  int64_t top5 = 0;  // likewise, among the five largest (all rows if K <= 5)

  HeadResult& operator+=(const HeadResult& other) {
    loss_sum += other.loss_sum;
    rows += other.rows;
    top1 += other.top1;
    top5 += other.top5;
    return *this;
  }
};

struct SoftmaxLossArguments {
  Tensor logits;
  const int32_t* labels = nullptr;
  const int32_t* partner_labels = nullptr;  // [N], set where `labels` count; nullptr: no row is mixed
  const float* partner_weights = nullptr;   // [N], w; with partner_labels
  float smoothing = 0;
  float weight = 1;                   // weight of the head
  const StepContext* step = nullptr;  // for loss_scale
  void* dlogits = nullptr;  // logits' desc, overwritten with weight * loss_scale * (softmax - target), 0 for
                            // rows that do not count; nullptr: not needed
  HeadResult* result = nullptr;  // overwritten
  void* workspace = nullptr;     // SoftmaxLossWorkspaceBytes(device, logits.desc)

  void Check() const {
    const TensorDesc& desc = logits.desc;
    DEEPER_CHECK(desc.layout == Layout::kNchw && desc.shape.spatial() == 1, desc.shape.ToString());
  }
};

// All arguments are in device memory. Runs on the device's stream.
DEEPER_BACKENDS(void, SoftmaxLoss, Device& device, const SoftmaxLossArguments& arguments);
DEEPER_BACKENDS(size_t, SoftmaxLossWorkspaceBytes, Device& device, const TensorDesc& logits);

}  // namespace deeper
