#include "trainer/engine/memory_plan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/base/rng.h"

namespace deeper {
namespace {

TEST(MemoryPlanTest, BuffersThatNeverMeetShareMemory) {
  const MemoryPlan plan = PlanMemory({{400, 0, 1}, {400, 2, 3}, {256, 1, 2}});
  EXPECT_EQ(plan.offsets[0], plan.offsets[1]);
  EXPECT_EQ(plan.offsets[2], 512u);
  EXPECT_EQ(plan.bytes, 768u);
}

TEST(MemoryPlanTest, SmallBufferFillsAGap) {
  // At time 1 the large buffers leave no gap; at time 2 the middle one is gone.
  const MemoryPlan plan = PlanMemory({{2560, 0, 2}, {1280, 0, 1}, {768, 0, 2}, {256, 2, 2}});
  EXPECT_EQ(plan.bytes, 2560u + 1280u + 768u);
  EXPECT_EQ(plan.offsets[3], plan.offsets[1]);
}

TEST(MemoryPlanTest, NothingAliveAtOneTimeOverlaps) {
  Rng rng(1, RandomStream("lifetimes"), 0, 0);
  std::vector<Lifetime> lifetimes;
  for (int i = 0; i < 300; ++i) {
    const int first = static_cast<int>(rng.NextBelow(100));
    lifetimes.push_back({rng.NextBelow(5000), first, first + static_cast<int>(rng.NextBelow(20))});
  }
  const MemoryPlan plan = PlanMemory(lifetimes);
  size_t lower_bound = 0;
  for (int time = 0; time < 120; ++time) {
    size_t alive = 0;
    for (const Lifetime& l : lifetimes) alive += l.first <= time && time <= l.last ? l.bytes : 0;
    lower_bound = std::max(lower_bound, alive);
  }
  for (size_t a = 0; a < lifetimes.size(); ++a) {
    EXPECT_EQ(plan.offsets[a] % 256, 0u);
    EXPECT_LE(plan.offsets[a] + lifetimes[a].bytes, plan.bytes);
    for (size_t b = 0; b < a; ++b) {
      const bool together =
          lifetimes[a].first <= lifetimes[b].last && lifetimes[b].first <= lifetimes[a].last;
      const bool apart = plan.offsets[a] + lifetimes[a].bytes <= plan.offsets[b] ||
                         plan.offsets[b] + lifetimes[b].bytes <= plan.offsets[a];
      EXPECT_TRUE(!together || apart) << a << " and " << b;
    }
  }
  EXPECT_LT(static_cast<double>(plan.bytes), 1.2 * static_cast<double>(lower_bound));
}

}  // namespace
}  // namespace deeper
