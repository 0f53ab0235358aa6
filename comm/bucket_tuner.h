// Finds the size of gradient buckets in the first steps of a run: small ones leave early, large ones cost
// less for each byte. Every candidate gets the same few steps; the one with the fastest step wins.
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

  // What to use in the coming step; the same on every rank.
  size_t bucket_bytes() const { return candidates_[current_]; }
  bool done() const { return done_; }
  // After each step until done: how long it took from the first gradient of backward to the sum of the last.
  // Collective.
  void Observe(double step_ms);

 private:
  Communicator& comm_;
  const std::vector<size_t> candidates_;
  std::vector<double> fastest_ms_;  // [candidate], of this rank
  size_t current_ = 0;
  int steps_ = 0;  // with the current one
  bool done_ = false;
};

}  // namespace deeper
