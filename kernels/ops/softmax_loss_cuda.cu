#include <algorithm>
#include <cmath>

#include "kernels/cuda/base/cuda_for_each.h"
#include "kernels/ops/softmax_loss.h"

namespace deeper {
namespace {

// A lane takes every kLanes-th class of a row, so neighbouring lanes read neighbouring logits.
constexpr int64_t kLanes = 32;

struct LaneResult {
  double sum;     // of exp(logit - max), over the lane's classes
  double logits;  // sum of the logits
  float max;
  int32_t ahead;  // classes that rank before the label
};

struct RowResult {
  double loss;
  float max, inverse_sum;
  int64_t ahead;  // -1 for a row that does not count
};

template <class T>
struct Rows {
  const T* logits;
  const int32_t* labels;
  const int32_t* partner_labels;
  const float* partner_weights;
  float smoothing;
  int64_t classes;

  DEEPER_HD float Logit(int64_t n, int64_t c) const { return ToFloat(logits[n * classes + c]); }
  // Requires a counted label (not negative). A label outside the classes gives a NaN loss.
  DEEPER_HD float LogitOf(int64_t n, int32_t label) const { return label < classes ? Logit(n, label) : NAN; }
  DEEPER_HD float OwnLogit(int64_t n) const { return LogitOf(n, labels[n]); }
  DEEPER_HD float PartnerWeight(int64_t n) const {
    return partner_labels == nullptr ? 0 : partner_weights[n];
  }

  DEEPER_HD float Target(int64_t n, int64_t c) const {
    const float w = PartnerWeight(n);
    const float hard = (c == labels[n] ? 1 - w : 0) + (w > 0 && c == partner_labels[n] ? w : 0);
    return (1 - smoothing) * hard + smoothing / static_cast<float>(classes);
  }
  // Sum over the classes of target * logit. `sum` is the sum of all logits.
  DEEPER_HD double TargetLogit(int64_t n, double sum) const {
    const double w = PartnerWeight(n);
    double hard = OwnLogit(n);
    if (w > 0) hard = (1 - w) * hard + w * LogitOf(n, partner_labels[n]);
    if (smoothing == 0) return hard;
    return (1 - double{smoothing}) * hard + smoothing * sum / static_cast<double>(classes);
  }
};

template <class T>
struct ReduceLane {
  Rows<T> rows;
  LaneResult* results;
  DEEPER_HD void operator()(int64_t i) const {
    const int64_t n = i / kLanes, first = i % kLanes, label = rows.labels[n];
    if (label < 0) return;
    const float own = rows.OwnLogit(n);
    LaneResult result = {0, 0, -INFINITY, 0};
    for (int64_t c = first; c < rows.classes; c += kLanes) {
      const float logit = rows.Logit(n, c);
      result.max = std::max(result.max, logit);
      result.logits += logit;
      // A NaN ranks all other classes before the label, so that a diverged network does not count as
      // accurate.
      if (c != label) result.ahead += c < label ? !(logit < own) : !(logit <= own);
    }
    // A lane without a finite logit adds zeros (or NaNs) to the sums of the row.
    const double base = result.max == -INFINITY ? 0.0 : double{result.max};
    for (int64_t c = first; c < rows.classes; c += kLanes) {
      result.sum += std::exp(double{rows.Logit(n, c)} - base);
    }
    results[i] = result;
  }
};

template <class T>
struct ReduceRow {
  Rows<T> rows;
  const LaneResult* lanes;
  RowResult* results;
  DEEPER_HD void operator()(int64_t n) const {
    if (rows.labels[n] < 0) {
      results[n] = {0, 0, 0, -1};
      return;
    }
    const LaneResult* const own = lanes + n * kLanes;
    RowResult result = {0, -INFINITY, 0, 0};
    for (int64_t i = 0; i < kLanes; ++i) {
      result.max = std::max(result.max, own[i].max);
      result.ahead += own[i].ahead;
    }
    double sum = 0, logits = 0;
    for (int64_t i = 0; i < kLanes; ++i) {
      sum += own[i].sum * std::exp(double{own[i].max} - result.max);
      logits += own[i].logits;
    }
    result.inverse_sum = static_cast<float>(1 / sum);
    result.loss = std::log(sum) - (rows.TargetLogit(n, logits) - result.max);
    results[n] = result;
  }
};

template <class T>
struct Gradient {
  Rows<T> rows;
  const RowResult* results;
  const StepContext* step;  // in device memory
  float weight;
  T* dlogits;
  DEEPER_HD void operator()(int64_t i) const {
    const int64_t n = i / rows.classes, c = i % rows.classes;
    if (rows.labels[n] < 0) {
      dlogits[i] = T{};
      return;
    }
    const float softmax = std::exp(rows.Logit(n, c) - results[n].max) * results[n].inverse_sum;
    const float scale = weight * step->loss_scale;
    dlogits[i] = FromFloat<T>(scale * (softmax - rows.Target(n, c)));
  }
};

// One index adds all rows in order. It loads a batch of them at once.
struct AddRows {
  const RowResult* rows;
  int64_t count;
  HeadResult* result;
  static constexpr int kBatch = 16;
  int64_t Iterations() const { return (count + kBatch - 1) / kBatch; }
  DEEPER_HD void operator()(int64_t) const {
    HeadResult total;
    DEEPER_NO_UNROLL
    for (int64_t done = 0; done < count; done += kBatch) {
      const int left = static_cast<int>(count - done);
      double losses[kBatch] = {};
      int64_t ahead[kBatch] = {};
      DEEPER_UNROLL
      for (int i = 0; i < kBatch; ++i) {
        if (i >= left) continue;
        losses[i] = rows[done + i].loss;
        ahead[i] = rows[done + i].ahead;
      }
      DEEPER_UNROLL
      for (int i = 0; i < kBatch; ++i) {
        if (i >= left) continue;
        total.loss_sum += losses[i];
        total.rows += ahead[i] >= 0;
        total.top1 += ahead[i] >= 0 && ahead[i] < 1;
        total.top5 += ahead[i] >= 0 && ahead[i] < 5;
      }
    }
    *result = total;
  }
};

// The size of the lanes' results is a multiple of 256 bytes.
static_assert(kLanes * sizeof(LaneResult) % 256 == 0);

}  // namespace

void SoftmaxLossCuda(Device& device, const SoftmaxLossArguments& a) {
  a.Check();
  CudaDevice& cuda = AsCuda(device);
  const int64_t n = a.logits.desc.shape.n, classes = a.logits.desc.shape.c;
  const auto bytes = static_cast<int64_t>(a.logits.desc.bytes());
  const int64_t lane_bytes = n * kLanes * int64_t{sizeof(LaneResult)},
                row_bytes = n * int64_t{sizeof(RowResult)};
  auto* const lanes = static_cast<LaneResult*>(a.workspace);
  auto* const results = reinterpret_cast<RowResult*>(lanes + n * kLanes);
  WithFloatType(a.logits.desc.dtype, [&]<class T>() {
    const Rows<T> rows = {a.logits.as<const T>(), a.labels,    a.partner_labels,
                          a.partner_weights,      a.smoothing, classes};
    ForEach(cuda, {"softmax lanes", bytes + lane_bytes}, n * kLanes, ReduceLane<T>{rows, lanes});
    ForEach(cuda, {"softmax rows", lane_bytes + row_bytes}, n, ReduceRow<T>{rows, lanes, results});
    if (a.dlogits != nullptr) {
      ForEach(cuda, {"softmax gradient", 2 * bytes + row_bytes}, n * classes,
              Gradient<T>{rows, results, a.step, a.weight, static_cast<T*>(a.dlogits)});
    }
  });
  ForEach(cuda, {"softmax loss", row_bytes}, 1, AddRows{results, n, a.result});
}

size_t SoftmaxLossWorkspaceBytesCuda(Device&, const TensorDesc& logits) {
  const auto rows = static_cast<size_t>(logits.shape.n);
  return rows * kLanes * sizeof(LaneResult) + Align(rows * sizeof(RowResult));
}

}  // namespace deeper
