#include "data/sample_order.h"

#include <algorithm>

#include "kernels/rng.h"

namespace deeper {
namespace {

constexpr int kRounds = 4;

}  // namespace

SampleOrder::SampleOrder(OrderKind kind, int64_t samples, uint64_t seed, uint32_t epoch)
    : kind_(kind), samples_(samples), seed_(seed), epoch_(epoch) {
  while ((int64_t{1} << 2 * half_bits_) < samples) ++half_bits_;
}

int64_t SampleOrder::At(int64_t position) const {
  if (kind_ == OrderKind::kSequential) return position;
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t value = static_cast<uint64_t>(position);
  do {  // a bijection of the power of four; following its cycle back into the range makes it one of the range
    uint64_t left = value >> half_bits_, right = value & mask;
    for (uint32_t round = 0; round < kRounds; ++round) {
      const Rng rng(seed_, RandomStream("order"), epoch_, right);
      left ^= rng.Block(round).v[0] & mask;
      std::swap(left, right);
    }
    value = left << half_bits_ | right;
  } while (value >= static_cast<uint64_t>(samples_));
  return static_cast<int64_t>(value);
}

Slice RankSlice(int64_t samples, int64_t global_batch, int64_t batch, int rank, int world) {
  const int64_t begin = batch * global_batch, count = std::min(global_batch, samples - begin);
  return {begin + count * rank / world, begin + count * (rank + 1) / world};
}

}  // namespace deeper
