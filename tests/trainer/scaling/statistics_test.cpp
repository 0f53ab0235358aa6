#include "trainer/scaling/statistics.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace deeper {
namespace {

TEST(Statistics, Medians) {
  EXPECT_EQ(Median({3}), 3);
  EXPECT_EQ(Median({9, 1, 3}), 3);
  EXPECT_EQ(Median({4, 9, 1, 2}), 3);
  EXPECT_EQ(MedianRatio({8, 3, 5}, {2, 3, 1}), 4);
}

TEST(Statistics, TimesWork) {
  const double seconds = SecondsOf([] { std::this_thread::sleep_for(std::chrono::milliseconds(20)); });
  EXPECT_GE(seconds, 0.02);
  EXPECT_LT(seconds, 10);
}

TEST(Statistics, IntervalsAreStudents) {
  // Mean 3, standard deviation 1.5811, 4 degrees of freedom: 3 +- 2.776 * 1.5811 / sqrt(5).
  const Interval five = MeanInterval({1, 2, 3, 4, 5});
  EXPECT_NEAR(five.low, 3 - 1.963, 1e-3);
  EXPECT_NEAR(five.high, 3 + 1.963, 1e-3);
  const Interval two = MeanInterval({10, 12});
  EXPECT_NEAR(two.high - two.low, 2 * 12.706, 1e-9);
  std::vector<double> many(101, 0.0);
  many[0] = 101;  // beyond the table: the normal distribution
  EXPECT_NEAR(MeanInterval(many).high, 1 + 1.960, 1e-9);
}

}  // namespace
}  // namespace deeper
