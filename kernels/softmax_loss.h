// Softmax cross-entropy of one classifier head: loss, accuracy counts and the gradient of the logits in one
// pass.
//
// logits: [N,K,1,1] kNchw, fp32 or bf16; labels: [N] int32, -1 for a row that does not count (padding).
// loss of a row = -log softmax(logits)[label], with the maximum subtracted first. All sums in double, in row
// order: the same bits for any number of threads.
#pragma once

#include <cstdint>

#include "kernels/device.h"
#include "kernels/tensor.h"

namespace deeper {

struct HeadResult {
  double loss_sum = 0;  // over the rows that count
  int64_t rows = 0;
  int64_t top1 = 0;  // rows whose label has the largest logit; of equal logits the lowest class wins
  int64_t top5 = 0;  // rows whose label is among the five largest, likewise (all rows where K <= 5)

  HeadResult& operator+=(const HeadResult& other) {
    loss_sum += other.loss_sum;
    rows += other.rows;
    top1 += other.top1;
    top5 += other.top5;
    return *this;
  }
};

// dlogits (logits' desc; may be nullptr) is overwritten with scale * (softmax - onehot), 0 for rows that do
// not count. Asynchronous on the device's stream; *result is overwritten and may be read after
// Device::Synchronize.
void SoftmaxLoss(Device& device, const Tensor& logits, const int32_t* labels, float scale, void* dlogits,
                 HeadResult* result);

}  // namespace deeper
