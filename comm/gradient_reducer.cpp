#include "comm/gradient_reducer.h"

#include <algorithm>
#include <string>
#include <utility>

#include "comm/phase.h"
#include "kernels/base/check.h"
#include "kernels/base/clock.h"

namespace deeper {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

// Merges spans that are adjacent in the arena, in any order.
std::vector<GradientPiece> Merged(std::vector<GradientPiece> spans) {
  std::sort(spans.begin(), spans.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; });
  std::vector<GradientPiece> merged;
  for (const GradientPiece& span : spans) {
    if (span.count == 0) continue;
    if (!merged.empty() && merged.back().offset + merged.back().count == span.offset) {
      merged.back().count += span.count;
    } else {
      merged.push_back(span);
    }
  }
  return merged;
}

}  // namespace

std::vector<size_t> PackPieces(const std::vector<GradientPiece>& pieces, size_t bucket_bytes) {
  std::vector<size_t> bucket_of;
  size_t bucket = 0, filled = 0;  // bytes in it
  for (const GradientPiece& piece : pieces) {
    if (!bucket_of.empty() && filled >= bucket_bytes) {
      ++bucket;
      filled = 0;
    }
    bucket_of.push_back(bucket);
    filled += piece.count * sizeof(float);
  }
  return bucket_of;
}

GradientReducer::GradientReducer(Communicator& comm, float* arena, const std::vector<GradientPiece>& pieces,
                                 size_t bucket_bytes, GradientSum sum)
    : comm_(comm), arena_(arena), pieces_(pieces), sum_(sum) {
  if (comm_.size() == 1) return;
  if (bucket_bytes == kTunedBuckets) {
    DEEPER_CHECK(!comm_.recordable(), "recorded buckets cannot change");
    tuner_.emplace(comm_, std::vector<size_t>{8 * kMiB, 2 * kMiB, 4 * kMiB, 16 * kMiB, 32 * kMiB});
    bucket_bytes = tuner_->bucket_bytes();
  }
  PackBuckets(bucket_bytes);
  Rearm();
  if (sum_ != GradientSum::kBf16) return;
  for (const GradientPiece& piece : pieces_)
    residuals_.resize(std::max(residuals_.size(), piece.offset + piece.count));
}

void GradientReducer::PackBuckets(size_t bucket_bytes) {
  bucket_of_ = PackPieces(pieces_, bucket_bytes);
  buckets_.assign(bucket_of_.empty() ? 0 : bucket_of_.back() + 1, {});
  for (size_t i = 0; i < pieces_.size(); ++i) {
    Bucket& bucket = buckets_[bucket_of_[i]];
    bucket.spans.push_back(pieces_[i]);
    ++bucket.pieces;
  }
  for (Bucket& bucket : buckets_) bucket.spans = Merged(std::move(bucket.spans));
}

void GradientReducer::Ready(size_t piece, Stream stream) {
  if (comm_.size() == 1) return;
  DEEPER_CHECK(piece < ready_.size() && !ready_[piece], "gradient piece " + std::to_string(piece));
  if (first_ready_ms_ == 0) first_ready_ms_ = Milliseconds();
  ready_[piece] = true;
  --buckets_[bucket_of_[piece]].pending;
  for (; sent_ < buckets_.size() && buckets_[sent_].pending == 0; ++sent_) Send(buckets_[sent_], stream);
}

void GradientReducer::Send(const Bucket& bucket, Stream stream) {
  for (const GradientPiece& span : bucket.spans) {
    float* const data = arena_ + span.offset;
    if (sum_ == GradientSum::kBf16) {
      in_flight_.push_back(comm_.SumInBf16(data, residuals_.data() + span.offset, span.count, stream));
    } else {
      const ReduceOp op = sum_ == GradientSum::kTree ? ReduceOp::kTreeSum : ReduceOp::kSum;
      in_flight_.push_back(comm_.AllReduce(data, span.count, CommType::kF32, op, stream));
    }
  }
}

void GradientReducer::Finish(Stream) {
  if (comm_.size() == 1) return;
  DEEPER_CHECK(sent_ == buckets_.size(), "a gradient is not ready");
  const double start = Milliseconds();
  for (size_t i = 0; i < in_flight_.size(); ++i) {
    EnterPhase(Phase::kGradients, static_cast<int64_t>(i));
    in_flight_[i].Wait();
  }
  wait_ms_ = Milliseconds() - start;
  if (tuner_ && !tuner_->done()) {
    tuner_->Observe(Milliseconds() - first_ready_ms_);
    PackBuckets(tuner_->bucket_bytes());
  }
  Rearm();
}

void GradientReducer::Rearm() {
  in_flight_.clear();
  ready_.assign(bucket_of_.size(), false);
  for (Bucket& bucket : buckets_) bucket.pending = bucket.pieces;
  sent_ = 0;
  first_ready_ms_ = 0;
}

}  // namespace deeper
