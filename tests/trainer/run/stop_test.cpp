#include "trainer/run/stop.h"

#include <gtest/gtest.h>

#include <csignal>
#include <optional>
#include <thread>
#include <vector>

#include "tests/comm/threads_communicator.h"

namespace deeper {
namespace {

TEST(StopSignals, TheFirstIsNoted) {
  for (const int signal : {SIGTERM, SIGUSR1, SIGINT, SIGHUP}) {
    std::signal(signal, SIG_DFL);  // shells start background jobs with some of them ignored
    const StopSignals signals;
    EXPECT_FALSE(StopSignals::came());
    std::raise(signal);
    EXPECT_TRUE(StopSignals::came());
  }
  EXPECT_FALSE(StopSignals::came());
}

TEST(StopSignals, ObjectsThatOverlapAreOne) {
  auto first = std::make_optional<StopSignals>();
  {
    const StopSignals second;
    std::raise(SIGTERM);
    first.reset();
    EXPECT_TRUE(StopSignals::came());
  }
  EXPECT_FALSE(StopSignals::came());
  struct sigaction now {};
  sigaction(SIGTERM, nullptr, &now);
  EXPECT_EQ(now.sa_handler, SIG_DFL);
}

TEST(StopSignalsDeathTest, TheSecondEndsTheProcess) {
  const auto twice = [](int first, int second) {
    for (const int signal : {first, second}) std::signal(signal, SIG_DFL);
    const StopSignals signals;
    std::raise(first);
    std::raise(second);
  };
  EXPECT_EXIT(twice(SIGUSR1, SIGUSR1), testing::KilledBySignal(SIGUSR1), "");
  EXPECT_EXIT(twice(SIGUSR1, SIGTERM), testing::KilledBySignal(SIGTERM), "");
  EXPECT_EXIT(twice(SIGINT, SIGINT), testing::KilledBySignal(SIGINT), "once more to stop at once");
  EXPECT_EXIT(twice(SIGINT, SIGHUP), testing::KilledBySignal(SIGHUP), "");
}

TEST(StopSignals, WhatWasIgnoredStaysIgnored) {
  for (const int signal : {SIGINT, SIGHUP}) {
    std::signal(signal, SIG_IGN);
    {
      const StopSignals signals;
      std::raise(signal);
      EXPECT_FALSE(StopSignals::came());
    }
    EXPECT_EQ(std::signal(signal, SIG_DFL), SIG_IGN);
  }
}

TEST(StrongestWish, IsEveryRanks) {
  const auto comms = MakeThreadCommunicators(3);
  std::vector<std::thread> ranks;
  for (const auto& comm : comms) {
    ranks.emplace_back([&comm] {
      for (const Wish strongest : {Wish::kNone, Wish::kSave, Wish::kStop}) {
        for (int wisher = 0; wisher < 3; ++wisher) {
          EXPECT_EQ(StrongestWish(comm->rank() == wisher ? strongest : Wish::kNone, *comm), strongest);
        }
      }
    });
  }
  for (std::thread& rank : ranks) rank.join();
}

}  // namespace
}  // namespace deeper
