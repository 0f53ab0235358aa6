// Which samples make up which batch: a pure function of (seed, epoch), independent of the number of ranks.
//
// Global batch k of an epoch is positions [kG, (k+1)G) of the epoch's permutation; the last one may be
// shorter. Of its B samples, rank r of W takes [B r / W, B (r+1) / W). Every epoch contains every sample
// exactly once, for any G and W.
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
  kBlock,  // a pseudo-random permutation of blocks of consecutive samples, which are adjacent in a shard;
           // then a permutation of the samples in each window of consecutive blocks. For disks: while a
           // window is in use, the next one's blocks can be read ahead, each in one piece. Different
           // every epoch
};
constexpr auto Choices(OrderKind) {
  return std::to_array<Choice<OrderKind>>(
      {{"full", OrderKind::kFull, "a new permutation of all samples every epoch"},
       {"block", OrderKind::kBlock,
        "a new permutation of blocks of 128 samples every epoch, mixed over 16384 samples; for disks"},
       {"sequential", OrderKind::kSequential, "as stored"}});
}

// For kBlock. A block of ImageNet's JPEGs has 14 MB, which a disk reads in ten times its seek time. Never
// change these values: runs that resume from older checkpoints need the same order.
constexpr int64_t kBlockSamples = 128;
constexpr int64_t kWindowSamples = 128 * kBlockSamples;

// Maps a position to a sample without a table: 4-round Feistel networks over the next power of four, keyed by
// (seed, epoch), with cycle walking (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). O(1)
// memory, expected O(1) time.
class SampleOrder {
 public:
  SampleOrder(OrderKind kind, int64_t samples, uint64_t seed, uint32_t epoch);
  // Sample at `position`, 0 <= position < samples.
  int64_t At(int64_t position) const;
  // The samples to read ahead at `position`: at the start of a block, the block that is used one window
  // later; otherwise none. Covers each block of an epoch once, except those of the first window.
  Slice ReadAhead(int64_t position) const;

 private:
  // A permutation of [0, count), different for every (stream, index).
  int64_t Permute(int64_t position, int64_t count, uint32_t stream, uint64_t index) const;
  // Block at position `place` in the order of blocks. An incomplete last block is last in every order.
  int64_t Block(int64_t place) const;

  OrderKind kind_;
  int64_t samples_;
  uint64_t seed_;
  uint32_t epoch_;
};

// The positions that rank `rank` of `world` reads of global batch `batch`, in an epoch of `samples`.
Slice RankSlice(int64_t samples, int64_t global_batch, int64_t batch, int rank, int world);

inline int64_t BatchesPerEpoch(int64_t samples, int64_t global_batch) {
  return (samples + global_batch - 1) / global_batch;
}

}  // namespace deeper
