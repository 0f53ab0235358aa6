#include "trainer/monitor/stragglers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/comm/threads_communicator.h"

namespace deeper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kWindow = 10;

// What is said over `steps` steps of `size` ranks; all ranks must say the same.
std::vector<std::string> Said(int size, int64_t steps,
                              const std::function<RankTimes(int rank, int64_t step)>& times) {
  auto comms = MakeThreadCommunicators(size);
  std::vector<std::vector<std::string>> said(comms.size());
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < comms.size(); ++rank) {
    threads.emplace_back([&, rank] {
      Stragglers stragglers(*comms[rank], kWindow);
      for (int64_t step = 1; step <= steps; ++step) {
        for (const std::string& line : stragglers.Observe(step, times(static_cast<int>(rank), step)))
          said[rank].push_back(line);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& other : said) EXPECT_EQ(other, said.front());
  return said.front();
}

TEST(Stragglers, SaysNothingOfRanksThatKeepUp) {
  EXPECT_THAT(Said(3, 100, [](int rank, int64_t) { return RankTimes{1, 100 + 10.0 * rank}; }), IsEmpty());
  EXPECT_THAT(Said(1, 100, [](int, int64_t) { return RankTimes{1, 100}; }), IsEmpty());
}

TEST(Stragglers, NamesASlowRankOnceAndItsSlowPart) {
  EXPECT_THAT(
      Said(2, 100,
           [](int rank, int64_t) {
             return RankTimes{rank == 1 ? 61.0 : 1.0, 99};
           }),
      ElementsAre("rank 1 is slow, mostly in waiting for data: steps 11 to 20 took it 160.0 ms each, 1.60 "
                  "times the median rank's; waiting for data 61.0 ms (median 1.0), computing 99.0 ms "
                  "(median 99.0)"));
  EXPECT_THAT(Said(4, 100,
                   [](int rank, int64_t) {
                     return RankTimes{1, rank == 2 ? 200.0 : 99.0};
                   }),
              ElementsAre(HasSubstr("rank 2 is slow, mostly in computing")));
}

TEST(Stragglers, ForgivesASingleWindow) {
  EXPECT_THAT(Said(3, 100,
                   [](int rank, int64_t step) {
                     return RankTimes{rank == 1 && step / kWindow % 2 == 1 ? 100.0 : 0.0, 50};
                   }),
              IsEmpty());
}

TEST(Stragglers, NamesARankAgainThatHadCaughtUp) {
  const auto said = Said(3, 80, [](int rank, int64_t step) {
    return RankTimes{rank == 0 && (step <= 30 || step > 50) ? 100.0 : 0.0, 50};
  });
  EXPECT_THAT(said, ElementsAre(HasSubstr("steps 11 to 20"), HasSubstr("steps 61 to 70")));
}

}  // namespace
}  // namespace deeper
