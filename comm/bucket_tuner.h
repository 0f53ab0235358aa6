// Chooses the size of gradient buckets in the first steps of a run. Small buckets are sent early; large ones
// cost less per byte. Every candidate is used for the same few steps. The candidate with the fastest step
// wins.
#pragma once

#include <cstddef>
#include <vector>

#include "comm/communicator.h"

namespace deeper {

class BucketTuner {
 public:
  static constexpr int kStepsEach = 3;

  // candidates: bytes; at least one.
  BucketTuner(Communicator& comm, std::vector<size_t> candidates);

  // The size to use in the next step; the same on every rank.
  size_t bucket_bytes() const { return candidates_[current_]; }
  bool done() const { return done_; }
  // Call after each step until done, with the time from the first gradient of backward to the sum of the last
  // one. Collective.
  void Observe(double step_ms);

 private:
  Communicator& comm_;
  const std::vector<size_t> candidates_;
  std::vector<double> fastest_ms_;  // [candidate], of this rank
  size_t current_ = 0;
  int steps_ = 0;  // with the current candidate
  bool done_ = false;
};

}  // namespace deeper
