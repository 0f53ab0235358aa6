// Which samples make up which batch, on which rank: a pure function of (seed, epoch), never of the number of
// ranks.
//
// Global batch k of an epoch is positions [kG, (k+1)G) of the epoch's permutation, cut short by the end of
// the epoch; of its B samples rank r of W takes [B r / W, B (r+1) / W). Every sample is seen exactly once an
// epoch, for any G and W.
#pragma once

#include <cstdint>

namespace deeper {

enum class OrderKind {
  kSequential,  // 0, 1, 2, ...
  kFull,        // a pseudo-random permutation of all samples, different every epoch
};

// Position -> sample without storing a table: a 4-round Feistel network over the next power of four, keyed by
// (seed, epoch), with cycle walking (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). O(1)
// memory, expected O(1) time.
class SampleOrder {
 public:
  SampleOrder(OrderKind kind, int64_t samples, uint64_t seed, uint32_t epoch);
  // Sample at `position`, 0 <= position < samples.
  int64_t At(int64_t position) const;

 private:
  OrderKind kind_;
  int64_t samples_;
  uint64_t seed_;
  uint32_t epoch_;
  int half_bits_ = 0;
};

struct Slice {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};

// Positions rank `rank` of `world` reads of global batch `batch` of an epoch of `samples`.
Slice RankSlice(int64_t samples, int64_t global_batch, int64_t batch, int rank, int world);

inline int64_t BatchesPerEpoch(int64_t samples, int64_t global_batch) {
  return (samples + global_batch - 1) / global_batch;
}

}  // namespace deeper
