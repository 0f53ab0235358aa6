// The counter-based generator of all random draws: weights, dropout, augmentation, sample order.
//
// Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
// The known-answer vectors of their Random123 library are in tests/kernels/base/rng_test.cpp. The same (key,
// counter) gives the same bits on every device, for any number of threads and ranks, in any order of calls.
#pragma once

#include <cstdint>
#include <string_view>

#include "kernels/base/host_device.h"

namespace deeper {

struct Random4 {
  uint32_t v[4];
};

// counter = (lo, hi), key = key; each 64 bits, low word first.
DEEPER_HD inline Random4 Philox(uint64_t key, uint64_t counter_hi, uint64_t counter_lo) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  uint32_t c0 = static_cast<uint32_t>(counter_lo), c1 = static_cast<uint32_t>(counter_lo >> 32);
  uint32_t c2 = static_cast<uint32_t>(counter_hi), c3 = static_cast<uint32_t>(counter_hi >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0,
                   n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Uniform in [0, 1), 24 bits.
DEEPER_HD inline float UnitFloat(uint32_t bits) {
  return static_cast<float>(bits >> 8) * (1.0f / 16777216.0f);
}

// Maps the name of a consumer of draws (an op, an augmentation, a parameter) to a number: FNV-1a. This
// function must never change: checkpoints and the order of samples depend on it.
constexpr uint32_t RandomStream(std::string_view name) {
  uint32_t hash = 2166136261u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash;
}

// One sequence of draws, keyed by (seed, epoch, sample, op). Draw i is Philox word i % 4 of block i / 4.
class Rng {
 public:
  DEEPER_HD Rng(uint64_t seed, uint32_t stream, uint32_t epoch, uint64_t sample)
      : key_(seed ^ (uint64_t{stream} << 32 | stream)), hi_(sample), lo_(uint64_t{epoch} << 32) {}

  // Block `index` (< 2^32) of the sequence.
  DEEPER_HD Random4 Block(uint32_t index) const { return Philox(key_, hi_, lo_ | index); }
  // The next draw of the sequence.
  DEEPER_HD uint32_t Next() {
    if (next_ % 4 == 0) block_ = Block(next_ / 4);
    return block_.v[next_++ % 4];
  }
  DEEPER_HD float NextUnit() { return UnitFloat(Next()); }
  // Uniform in [0, bound), bound > 0. The bias of at most bound / 2^32 is negligible here.
  DEEPER_HD uint32_t NextBelow(uint32_t bound) {
    return static_cast<uint32_t>((uint64_t{Next()} * bound) >> 32);
  }

 private:
  uint64_t key_, hi_, lo_;
  uint32_t next_ = 0;
  Random4 block_{};
};

}  // namespace deeper
