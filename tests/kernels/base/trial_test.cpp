#include "kernels/base/trial.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "kernels/base/check.h"

namespace deeper {
namespace {

using std::chrono::milliseconds;

TEST(TrialTest, WorkThatEndsInTimeChangesNothing) {
  // ThreadSanitizer showed in such a loop that ends were taken for time limits.
  for (int i = 0; i < 10'000; ++i) const Trial trial("quick work", std::chrono::hours(1));
}

TEST(TrialDeathTest, WorkThatDoesNotEndIsNamed) {
  EXPECT_DEATH(
      {
        const Trial trial("kernel 7", milliseconds(20));
        std::this_thread::sleep_for(std::chrono::hours(1));
      },
      "it did not within 20 ms \\(kernel 7\\)");
}

TEST(TrialDeathTest, AFailedCheckNamesTheWork) {
  EXPECT_DEATH(
      {
        const Trial trial("kernel 7", std::chrono::hours(1));
        DEEPER_CHECK(1 > 2, "a fault");
      },
      "1 > 2: a fault \\(kernel 7\\)");
}

TEST(TrialDeathTest, AfterTheTrialNothingIsAdded) {
  EXPECT_DEATH(
      {
        { const Trial trial("kernel 7", std::chrono::hours(1)); }
        DEEPER_CHECK(1 > 2, "a fault");
      },
      "1 > 2: a fault\n");
}

}  // namespace
}  // namespace deeper
