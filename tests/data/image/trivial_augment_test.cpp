#include "data/image/trivial_augment.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <utility>

namespace deeper {
namespace {

// Every operation, strength and sign is drawn with the same probability. trivial_augment_test.py checks what
// each of them does.
TEST(DrawTrivialChange, IsUniform) {
  constexpr int kDraws = 100'000;
  std::map<std::pair<TrivialOp, double>, int> found, expected;
  for (int op = 0; op < kTrivialOps; ++op) {
    for (int strength = 0; strength < kTrivialStrengths; ++strength) {
      for (const bool negative : {false, true}) {
        const TrivialChange change = MakeTrivialChange(static_cast<TrivialOp>(op), strength, negative);
        ++expected[{change.op, change.magnitude}];
      }
    }
  }
  for (uint64_t i = 0; i < kDraws; ++i) {
    const TrivialChange change = DrawTrivialChange(Rng(5, RandomStream("test"), 1, i));
    ++found[{change.op, change.magnitude}];
  }
  EXPECT_EQ(found.size(), expected.size());
  for (const auto& [change, ways] : expected) {
    const double mean = static_cast<double>(kDraws) * ways / (kTrivialOps * kTrivialStrengths * 2);
    EXPECT_NEAR(found[change], mean, 5 * std::sqrt(mean))
        << "operation " << static_cast<int>(change.first) << ", magnitude " << change.second;
  }
}

}  // namespace
}  // namespace deeper
