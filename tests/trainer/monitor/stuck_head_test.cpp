#include "trainer/monitor/stuck_head.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace deeper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Model TwoHeads() {
  Model model;
  model.num_classes = 1000;
  model.heads = {{"main", 0, 1.0f}, {"aux1", 0, 0.3f}};
  return model;
}

TEST(StuckHeadsTest, NamesTheHeadThatGuesses) {
  StuckHeads stuck(TwoHeads(), 3);
  EXPECT_THAT(stuck.Observe(1, {6.9, 6.9}), IsEmpty());
  EXPECT_THAT(stuck.Observe(2, {5.0, 6.92}), IsEmpty());
  EXPECT_THAT(stuck.Observe(3, {4.0, 6.91}),
              ElementsAre(::testing::AllOf(HasSubstr("head aux1"), HasSubstr("step 3"),
                                           HasSubstr("ln 1000 = 6.9078"))));
}

TEST(StuckHeadsTest, WarnsOnceAHead) {
  StuckHeads stuck(TwoHeads(), 1);
  EXPECT_THAT(stuck.Observe(1, {1.0, std::log(1000.0)}), ElementsAre(HasSubstr("aux1")));
  EXPECT_THAT(stuck.Observe(2, {std::log(1000.0), std::log(1000.0)}), ElementsAre(HasSubstr("main")));
  EXPECT_THAT(stuck.Observe(3, {std::log(1000.0), std::log(1000.0)}), IsEmpty());
}

TEST(StuckHeadsTest, SilentWhileLearningOrDiverging) {
  StuckHeads stuck(TwoHeads(), 2);
  for (int step = 0; step < 10; ++step) EXPECT_THAT(stuck.Observe(step, {6.9 - 0.3 * step, 8.0}), IsEmpty());
}

}  // namespace
}  // namespace deeper
