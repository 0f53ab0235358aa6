#include "kernels/base/affinity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <thread>

namespace deeper {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(Affinity, ReadsTheKernelsLists) {
  EXPECT_THAT(ParseCpuList("0-3,8,10-11\n"), ElementsAre(0, 1, 2, 3, 8, 10, 11));
  EXPECT_THAT(ParseCpuList("5"), ElementsAre(5));
  EXPECT_THAT(ParseCpuList(""), IsEmpty());
  EXPECT_THAT(ParseCpuList("none"), IsEmpty());
  EXPECT_THAT(ParseCpuList("0-x"), IsEmpty());
}

cpu_set_t Mine() {
  cpu_set_t mine;
  sched_getaffinity(0, sizeof mine, &mine);
  return mine;
}

TEST(Affinity, KeepsToWhatItMayUse) {
  std::thread([] {  // a separate thread, so that the other tests keep their cores
    const cpu_set_t all = Mine();
    KeepTo({});
    const cpu_set_t after_nothing = Mine();
    EXPECT_TRUE(CPU_EQUAL(&all, &after_nothing));
    int first = 0;
    while (!CPU_ISSET(first, &all)) ++first;
    KeepTo({first, CPU_SETSIZE - 1});
    const cpu_set_t one = Mine();
    EXPECT_EQ(CPU_COUNT(&one), 1);
    EXPECT_TRUE(CPU_ISSET(first, &one));
  })
      .join();
}

}  // namespace
}  // namespace deeper
