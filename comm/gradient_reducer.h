// Sums gradients over ranks in buckets that are sent while backward still runs (PyTorch DDP, Li et al. 2020).
//
// The gradients are one fp32 arena. `pieces` are its parts (offset, count) in the order in which backward
// finishes them. Neighbours in that order share buckets of at least bucket_bytes. A bucket is contiguous in
// the arena where its pieces are. With bucket_bytes = kTunedBuckets, the first steps try several sizes; with
// more than two ranks, the order of a kAnyOrder sum depends on the size of the bucket.
// The arena is memory of the host or of a device, as the communicator's collectives require.
// Ready(i) says that piece i is final on `stream`. A bucket is sent when all its pieces are ready and all
// earlier buckets are sent, so every rank sends in the same order, even if pieces become ready in another
// order. Finish returns when all sums are visible to later work on `stream`. Between two Finish calls every
// piece must become ready exactly once. A single rank has no buckets and does nothing.
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "comm/bucket_tuner.h"
#include "comm/communicator.h"

namespace deeper {

struct GradientPiece {
  size_t offset = 0;  // elements into the arena
  size_t count = 0;
};

inline constexpr size_t kTunedBuckets = 0;

// [piece] The bucket of each piece. Buckets are filled in the order of the pieces, each until it has
// bucket_bytes.
std::vector<size_t> PackPieces(const std::vector<GradientPiece>& pieces, size_t bucket_bytes);

// How to add the gradients of all ranks.
enum class GradientSum {
  kAnyOrder,  // ReduceOp::kSum
  kTree,      // ReduceOp::kTreeSum: independent of the number of ranks
  kBf16,      // Communicator::SumInBf16: half the bytes; the reducer keeps the residuals
};

class GradientReducer {
 public:
  GradientReducer(Communicator& comm, float* arena, const std::vector<GradientPiece>& pieces,
                  size_t bucket_bytes, GradientSum sum = GradientSum::kAnyOrder);

  void Ready(size_t piece, Stream stream);
  void Finish(Stream stream);

  // With kBf16, after a step whose gradients were not used: forgets its rounding errors, which may be as
  // large as its gradients.
  void ForgetErrors() { std::fill(residuals_.begin(), residuals_.end(), 0.0f); }

  // Whether Ready and Finish may be part of a Recording, which excludes tuning of buckets.
  bool recordable() const { return comm_.size() == 1 || comm_.recordable(); }
  // Time that Finish waited for communication that backward did not hide, and for slower ranks, since the
  // last call. 0 if a recording ran it.
  double TakeWaitMs() { return std::exchange(wait_ms_, 0.0); }

 private:
  struct Bucket {
    std::vector<GradientPiece> spans;  // contiguous ranges of the arena, merged
    size_t pieces = 0;                 // how many there are
    size_t pending = 0;                // how many are not ready yet
  };

  void PackBuckets(size_t bucket_bytes);
  void Send(const Bucket& bucket, Stream stream);
  void Rearm();  // before the first Ready of a step

  Communicator& comm_;
  float* arena_;
  const std::vector<GradientPiece> pieces_;
  const GradientSum sum_;
  std::vector<float> residuals_;  // [elements of the arena up to the last piece], with kBf16
  std::optional<BucketTuner> tuner_;
  std::vector<Bucket> buckets_;
  std::vector<size_t> bucket_of_;  // [piece]
  std::vector<bool> ready_;        // [piece]
  size_t sent_ = 0;                // buckets
  std::vector<Request> in_flight_;
  double first_ready_ms_ = 0;  // on the clock of Milliseconds(); 0: none is ready
  double wait_ms_ = 0;
};

}  // namespace deeper
