#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/trainer/monitor/watched.h"

namespace deeper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kWindow = 50;

struct Times {
  double data_wait_ms = 0, compute_ms = 0;
};

// The warnings in `steps` steps of `size` ranks, which must be the same on all ranks.
std::vector<std::string> Said(int size, int64_t steps,
                              const std::function<Times(int rank, int64_t step)>& times) {
  auto comms = MakeThreadCommunicators(size);
  std::vector<std::vector<std::string>> said(comms.size());
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < comms.size(); ++rank) {
    threads.emplace_back([&, rank] {
      const Model model;
      const FakeLoader loader;
      Watched watched{WatchStragglers({.model = model, .comm = *comms[rank], .loader = loader})};
      for (int64_t step = 1; step <= steps; ++step) {
        const Times mine = times(static_cast<int>(rank), step);
        StepReport report;
        report.data_wait_ms = mine.data_wait_ms;
        report.compute_ms = mine.compute_ms;
        EXPECT_EQ(watched.Observe(report), absl::OkStatus());
      }
      for (const Event& event : watched.events) {
        EXPECT_EQ(event.name, "straggler");
        EXPECT_EQ(event.text, "warning: " + event.fields.at("what").get<std::string>());
        said[rank].push_back(event.fields.at("what"));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& other : said) EXPECT_EQ(other, said.front());
  return said.front();
}

TEST(Stragglers, SaysNothingOfRanksThatKeepUp) {
  EXPECT_THAT(Said(3, 500, [](int rank, int64_t) { return Times{1, 100 + 10.0 * rank}; }), IsEmpty());
  EXPECT_THAT(Said(1, 500, [](int, int64_t) { return Times{1, 100}; }), IsEmpty());
}

TEST(Stragglers, NamesASlowRankOnceAndItsSlowPart) {
  EXPECT_THAT(
      Said(2, 500,
           [](int rank, int64_t) {
             return Times{rank == 1 ? 61.0 : 1.0, 99};
           }),
      ElementsAre("rank 1 is slow, mostly in waiting for data: steps 51 to 100 took 160.0 ms each, 1.60 "
                  "times the median of all ranks; waiting for data 61.0 ms (median 1.0), computing 99.0 ms "
                  "(median 99.0)"));
  EXPECT_THAT(Said(4, 500,
                   [](int rank, int64_t) {
                     return Times{1, rank == 2 ? 200.0 : 99.0};
                   }),
              ElementsAre(HasSubstr("rank 2 is slow, mostly in computing")));
}

TEST(Stragglers, ForgivesASingleWindow) {
  EXPECT_THAT(Said(3, 500,
                   [](int rank, int64_t step) {
                     return Times{rank == 1 && step / kWindow % 2 == 1 ? 100.0 : 0.0, 50};
                   }),
              IsEmpty());
}

TEST(Stragglers, NamesARankAgainThatHadCaughtUp) {
  const auto said = Said(3, 400, [](int rank, int64_t step) {
    return Times{rank == 0 && (step <= 150 || step > 250) ? 100.0 : 0.0, 50};
  });
  EXPECT_THAT(said, ElementsAre(HasSubstr("steps 51 to 100"), HasSubstr("steps 301 to 350")));
}

}  // namespace
}  // namespace deeper
