#include "data/load/batch_sequence.h"

#include <algorithm>

namespace deeper {

BatchSequence::BatchSequence(int64_t samples, const LoaderOptions& options)
    : samples_(samples), options_(options), epoch_(options.first_epoch), batch_(options.first_batch) {
  StartBatch();
}

BatchPlan BatchSequence::Next() {
  const int64_t begin = batch_ * options_.global_batch, count = GlobalRows();
  const Slice rows = Rows();
  const bool any = rows.size() > 0;  // a rank left without samples pads with the global batch's first
  BatchPlan plan;
  plan.first = any ? rows.begin : begin;
  plan.distinct = any ? rows.size() : std::min(count, options_.rows);
  plan.batch.rows = rows.size();
  plan.batch.epoch = epoch_;
  plan.batch.batch = batch_;
  plan.batch.global_rows = count;
  plan.batch.micro = micro_;
  plan.batch.micros = micros_;
  plan.batch.last_in_epoch = begin + count == samples_;
  if (++micro_ == micros_) {
    ++batch_;
    StartBatch();
  }
  return plan;
}

Slice BatchSequence::Rows() const {
  if (options_.slices > 0) {
    return RankSlice(samples_, options_.global_batch, batch_, options_.rank * micros_ + micro_,
                     options_.slices);
  }
  const Slice share = RankSlice(samples_, options_.global_batch, batch_, options_.rank, options_.world);
  return {share.begin + share.size() * micro_ / micros_, share.begin + share.size() * (micro_ + 1) / micros_};
}

int64_t BatchSequence::GlobalRows() const {
  return std::min(options_.global_batch, samples_ - batch_ * options_.global_batch);
}

void BatchSequence::StartBatch() {
  if (batch_ == BatchesPerEpoch(samples_, options_.global_batch)) {
    batch_ = 0;
    ++epoch_;
  }
  micro_ = 0;
  // Of the largest share, so that all ranks count alike.
  const int64_t share = (GlobalRows() + options_.world - 1) / options_.world;
  const int64_t micros =
      options_.slices > 0 ? options_.slices / options_.world : (share + options_.rows - 1) / options_.rows;
  micros_ = static_cast<int>(micros);
}

}  // namespace deeper
