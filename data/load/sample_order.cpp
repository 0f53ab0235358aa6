#include "data/load/sample_order.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "kernels/base/rng.h"

namespace deeper {

SampleOrder::SampleOrder(OrderKind kind, int64_t samples, uint64_t seed, uint32_t epoch)
    : kind_(kind), samples_(samples), seed_(seed), epoch_(epoch) {}

int64_t SampleOrder::At(int64_t position) const {
  if (kind_ == OrderKind::kSequential) return position;
  if (kind_ == OrderKind::kFull) return Permute(position, samples_, RandomStream("order"), 0);
  const int64_t window = position / kWindowSamples, begin = window * kWindowSamples;
  const int64_t count = std::min(kWindowSamples, samples_ - begin);
  const int64_t shuffled =
      begin + Permute(position - begin, count, RandomStream("order.window"), static_cast<uint64_t>(window));
  return Block(shuffled / kBlockSamples) * kBlockSamples + shuffled % kBlockSamples;
}

Slice SampleOrder::ReadAhead(int64_t position) const {
  const int64_t later = position + kWindowSamples;
  if (kind_ != OrderKind::kBlock || position % kBlockSamples != 0 || later >= samples_) return {};
  const int64_t begin = Block(later / kBlockSamples) * kBlockSamples;
  return {begin, std::min(begin + kBlockSamples, samples_)};
}

int64_t SampleOrder::Block(int64_t place) const {
  const int64_t full_blocks = samples_ / kBlockSamples;
  return place < full_blocks ? Permute(place, full_blocks, RandomStream("order.block"), 0) : place;
}

int64_t SampleOrder::Permute(int64_t position, int64_t count, uint32_t stream, uint64_t index) const {
  constexpr uint32_t kRounds = 4;
  const int half_bits = (std::bit_width(static_cast<uint64_t>(count - 1)) + 1) / 2;
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  uint64_t value = static_cast<uint64_t>(position);
  do {  // a bijection of the power of four; cycle walking restricts it to the range
    uint64_t left = value >> half_bits, right = value & mask;
    for (uint32_t round = 0; round < kRounds; ++round) {
      const Rng rng(seed_, stream, epoch_, index << 32 | right);
      left ^= rng.Block(round).v[0] & mask;
      std::swap(left, right);
    }
    value = left << half_bits | right;
  } while (value >= static_cast<uint64_t>(count));
  return static_cast<int64_t>(value);
}

Slice RankSlice(int64_t samples, int64_t global_batch, int64_t batch, int rank, int world) {
  const int64_t begin = batch * global_batch, count = std::min(global_batch, samples - begin);
  return {begin + count * rank / world, begin + count * (rank + 1) / world};
}

}  // namespace deeper
