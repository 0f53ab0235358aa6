#include "kernels/base/bf16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace deeper {
namespace {

TEST(Bf16, WideningAndNarrowingKeepsEveryValue) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const bf16 x{static_cast<uint16_t>(bits)};
    if (std::isnan(ToFloat(x))) {
      EXPECT_TRUE(std::isnan(ToFloat(ToBf16(ToFloat(x))))) << bits;
    } else {
      EXPECT_EQ(ToBf16(ToFloat(x)).bits, bits);
    }
  }
}

TEST(Bf16, RoundsToNearestEven) {
  const auto round = [](uint32_t bits) { return ToBf16(std::bit_cast<float>(bits)).bits; };
  EXPECT_EQ(round(0x3F807FFF), 0x3F80);  // just below half way
  EXPECT_EQ(round(0x3F808000), 0x3F80);  // half way: to even, down
  EXPECT_EQ(round(0x3F818000), 0x3F82);  // half way: to even, up
  EXPECT_EQ(round(0x3F808001), 0x3F81);  // just above half way
  EXPECT_EQ(round(0xBF808001), 0xBF81);  // by magnitude: keeps the sign
  EXPECT_EQ(round(0x00008001), 0x0001);  // subnormals round too
}

TEST(Bf16, OverflowsToInfinityAndKeepsNan) {
  EXPECT_TRUE(std::isinf(ToFloat(ToBf16(std::numeric_limits<float>::max()))));
  EXPECT_EQ(ToFloat(ToBf16(-std::numeric_limits<float>::infinity())),
            -std::numeric_limits<float>::infinity());
  // A NaN with its payload in the dropped bits only, and one whose payload would carry into the sign.
  EXPECT_TRUE(std::isnan(ToFloat(ToBf16(std::bit_cast<float>(0x7F800001u)))));
  EXPECT_TRUE(std::isnan(ToFloat(ToBf16(std::bit_cast<float>(0x7FFFFFFFu)))));
}

}  // namespace
}  // namespace deeper
