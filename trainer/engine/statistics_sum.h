// The sums that batch normalisation exchanges with --sync_bn, and the time that a rank waits for them.
//
// They are all-reduces between those of gradients, on the same communicator, stream and thread. Ops run and
// finish gradients in the same order on every rank; therefore all ranks start them in the same order.
#pragma once

#include <utility>

#include "comm/communicator.h"
#include "kernels/base/clock.h"
#include "kernels/base/op.h"

namespace deeper {

class StatisticsSum {
 public:
  // `comm` is for memory of the device that the stream belongs to.
  explicit StatisticsSum(Communicator& comm, Stream stream = {}) : comm_(comm), stream_(stream) {}
  StatisticsSum(const StatisticsSum&) = delete;

  // For OpOptions::sum_over_ranks; it refers to this object.
  SumOverRanks Function() {
    return [this](double* values, size_t count) {
      if (comm_.size() == 1) return;
      const double start = Milliseconds();
      comm_.AllReduce(values, count, CommType::kF64, ReduceOp::kSum, stream_).Wait();
      wait_ms_ += Milliseconds() - start;
    };
  }
  // Time spent waiting for other ranks since the last call.
  double TakeWaitMs() { return std::exchange(wait_ms_, 0.0); }

 private:
  Communicator& comm_;
  const Stream stream_;
  double wait_ms_ = 0;
};

}  // namespace deeper
