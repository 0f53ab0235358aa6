#include "kernels/base/rng.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace deeper {
namespace {

// philox4x32-10 of Random123's kat_vectors.
TEST(Philox, KnownAnswers) {
  struct Vector {
    uint32_t counter[4], key[2], expected[4];
  };
  const Vector vectors[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  const auto join = [](uint32_t lo, uint32_t hi) { return uint64_t{hi} << 32 | lo; };
  for (const Vector& v : vectors) {
    const Random4 r =
        Philox(join(v.key[0], v.key[1]), join(v.counter[2], v.counter[3]), join(v.counter[0], v.counter[1]));
    for (int i = 0; i < 4; ++i) EXPECT_EQ(r.v[i], v.expected[i]) << i;
  }
}

// The published test vectors of 32-bit FNV-1a.
TEST(RandomStream, IsFnv1a) {
  EXPECT_EQ(RandomStream(""), 0x811c9dc5u);
  EXPECT_EQ(RandomStream("a"), 0xe40c292cu);
  EXPECT_EQ(RandomStream("foobar"), 0xbf9cf968u);
}

TEST(Rng, NextWalksTheBlocks) {
  Rng rng(7, RandomStream("dropout"), 2, 99);
  const Rng blocks = rng;
  for (uint32_t i = 0; i < 12; ++i) EXPECT_EQ(rng.Next(), blocks.Block(i / 4).v[i % 4]) << i;
}

TEST(Rng, EveryPartOfTheKeyCounts) {
  std::set<uint32_t> first;
  for (uint64_t seed : {0, 1}) {
    for (uint32_t stream : {0, 1}) {
      for (uint32_t epoch : {0, 1}) {
        for (uint64_t sample : {0, 1}) first.insert(Rng(seed, stream, epoch, sample).Next());
      }
    }
  }
  EXPECT_EQ(first.size(), 16u);
}

TEST(Rng, UnitFloatStaysBelowOne) {
  EXPECT_EQ(UnitFloat(0), 0.0f);
  EXPECT_LT(UnitFloat(0xFFFFFFFFu), 1.0f);
  EXPECT_EQ(UnitFloat(0x80000000u), 0.5f);
}

TEST(Rng, DrawsAreUniform) {
  constexpr int kDraws = 100000;
  constexpr uint32_t kBins = 10;
  Rng unit(1, 2, 3, 4), below(5, 6, 7, 8);
  double sum = 0;
  int bins[kBins] = {};
  for (int i = 0; i < kDraws; ++i) {
    sum += unit.NextUnit();
    const uint32_t bin = below.NextBelow(kBins);
    ASSERT_LT(bin, kBins);
    ++bins[bin];
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 5 * std::sqrt(1.0 / 12 / kDraws));
  const double deviation = std::sqrt(kDraws * 0.1 * 0.9);
  for (const int count : bins) EXPECT_NEAR(count, kDraws / 10, 5 * deviation);
}

}  // namespace
}  // namespace deeper
