// Which samples make up which batch: a pure function of (seed, epoch), never of the number of ranks.
//
// Global batch k of an epoch is positions [kG, (k+1)G) of the epoch's permutation, cut short by the end of
// the epoch; of its B samples rank r of W takes [B r / W, B (r+1) / W). Every sample is seen exactly once an
// epoch, for any G and W.
#pragma once

#include <cstdint>

#include "kernels/base/choice.h"

namespace deeper {

struct Slice {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};

enum class OrderKind {
  kSequential,  // 0, 1, 2, ...
  kFull,        // a pseudo-random permutation of all samples, different every epoch
  kBlock,       // blocks of consecutive samples, which lie side by side in a shard, in such a permutation;
                // then the samples of each window of consecutive blocks. For disks: while a window is in use,
                // the next one's blocks can be read ahead, each in one piece. Different every epoch
};
constexpr auto Choices(OrderKind) {
  return std::to_array<Choice<OrderKind>>(
      {{"full", OrderKind::kFull, "another permutation of all samples every epoch"},
       {"block", OrderKind::kBlock,
        "another permutation of blocks of 128 samples every epoch, mixed over 16384 samples: for disks"},
       {"sequential", OrderKind::kSequential, "as stored"}});
}

// Of kBlock. A block of ImageNet's JPEGs is 14 MB: a disk takes ten times as long to read it as to find it.
// They never change: checkpoints made before must go on with the same order.
constexpr int64_t kBlockSamples = 128;
constexpr int64_t kWindowSamples = 128 * kBlockSamples;

// Position -> sample without storing a table: 4-round Feistel networks over the next power of four, keyed by
// (seed, epoch), with cycle walking (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). O(1)
// memory, expected O(1) time.
class SampleOrder {
 public:
  SampleOrder(OrderKind kind, int64_t samples, uint64_t seed, uint32_t epoch);
  // Sample at `position`, 0 <= position < samples.
  int64_t At(int64_t position) const;
  // The samples to read ahead when `position` comes up: now and then, the block that will be in use a window
  // later; else none. Over an epoch, each block but those of the first window once.
  Slice ReadAhead(int64_t position) const;

 private:
  // A permutation of [0, count), another for every (stream, index).
  int64_t Permute(int64_t position, int64_t count, uint32_t stream, uint64_t index) const;
  // Block at place `place` of the order of blocks. A last block that is not full is last in every order.
  int64_t Block(int64_t place) const;

  OrderKind kind_;
  int64_t samples_;
  uint64_t seed_;
  uint32_t epoch_;
};

// Positions rank `rank` of `world` reads of global batch `batch` of an epoch of `samples`.
Slice RankSlice(int64_t samples, int64_t global_batch, int64_t batch, int rank, int world);

inline int64_t BatchesPerEpoch(int64_t samples, int64_t global_batch) {
  return (samples + global_batch - 1) / global_batch;
}

}  // namespace deeper
