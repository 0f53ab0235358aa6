#include "comm/bucket_tuner.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace deeper {

BucketTuner::BucketTuner(Communicator& comm, std::vector<size_t> candidates)
    : comm_(comm),
      candidates_(std::move(candidates)),
      fastest_ms_(candidates_.size(), std::numeric_limits<double>::infinity()) {}

void BucketTuner::Observe(double step_ms) {
  fastest_ms_[current_] = std::min(fastest_ms_[current_], step_ms);
  if (++steps_ < kStepsEach) return;
  steps_ = 0;
  if (++current_ < candidates_.size()) return;
  // The slowest rank's times, so that all ranks choose the same size.
  comm_.AllReduce(fastest_ms_.data(), fastest_ms_.size(), CommType::kF64, ReduceOp::kMax, {}).Wait();
  current_ =
      static_cast<size_t>(std::min_element(fastest_ms_.begin(), fastest_ms_.end()) - fastest_ms_.begin());
  done_ = true;
}

}  // namespace deeper
