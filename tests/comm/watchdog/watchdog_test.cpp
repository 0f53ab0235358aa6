// Watchdogs of ranks that are threads. tests/faults covers processes that die or stop.
#include "comm/watchdog/watchdog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <future>
#include <iostream>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "comm/watchdog/lateness.h"
#include "comm/watchdog/peer_link.h"
#include "tests/comm/threads_communicator.h"

namespace deeper {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using namespace std::chrono_literals;

constexpr double kDeadline = 1;

// Runs ranks on threads and collects the reports of their watchdogs.
class Ranks {
 public:
  // Runs `part` as each of `size` ranks, and returns when all are done.
  void Run(int size, const std::function<void(Communicator&)>& part) {
    auto comms = MakeThreadCommunicators(size);
    std::vector<std::thread> ranks;
    for (auto& comm : comms) ranks.emplace_back([&] { RunRank(*comm, part); });
    for (std::thread& rank : ranks) rank.join();
  }
  // Hangs until a watchdog has reported.
  void Hang() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(spoke_.wait_for(lock, 60s, [&] { return !said_.empty(); }));
  }
  const std::vector<std::string>& said() const { return said_; }

 private:
  void RunRank(Communicator& comm, const std::function<void(Communicator&)>& part) {
    const auto say = [&](const std::string& reason) {
      std::lock_guard lock(mutex_);
      said_.push_back("rank " + std::to_string(comm.rank()) + " says: " + reason);
      spoke_.notify_all();
    };
    const auto watchdog = Watchdog::Start(comm, {.deadline_seconds = kDeadline, .on_failure = say});
    ASSERT_TRUE(watchdog.ok()) << watchdog.status();
    part(comm);
  }

  std::mutex mutex_;
  std::condition_variable spoke_;
  std::vector<std::string> said_;
};

// Lets this process open only `more` files than now, or up to `hard` after it raises its limit.
void LimitFiles(int more, rlim_t hard) {
  const int next = dup(0);
  close(next);
  const rlimit limit = {static_cast<rlim_t>(next + more), hard};
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) std::abort();
}

// Connects watchdogs of 12 ranks, of which each needs two files or three. Exits with 0, or prints the error.
[[noreturn]] void ConnectTwelve() {
  auto comms = MakeThreadCommunicators(12);
  std::vector<std::thread> ranks;
  std::atomic<bool> all = true;
  for (auto& comm : comms) {
    ranks.emplace_back([&] {
      const auto links = ConnectPeers(*comm);
      if (!links.ok() && comm->rank() == 0) std::cerr << links.status();
      if (!links.ok()) all = false;
    });
  }
  for (std::thread& rank : ranks) rank.join();
  std::exit(all ? 0 : 1);
}

TEST(PeerLinkDeathTest, RankZeroRaisesItsLimitOfOpenFiles) {
  rlimit before = {};
  getrlimit(RLIMIT_NOFILE, &before);
  EXPECT_EXIT((LimitFiles(13, before.rlim_max), ConnectTwelve()), testing::ExitedWithCode(0), "");
}

TEST(PeerLinkDeathTest, SaysThatItMayOpenNoMoreFiles) {
  const int next = dup(0);
  close(next);
  const auto hard = static_cast<rlim_t>(next + 16);  // a listener, 11 ends of the ranks, some of rank 0
  EXPECT_EXIT((LimitFiles(16, hard), ConnectTwelve()), testing::ExitedWithCode(1), "ulimit -n");
}

TEST(Watchdog, IsSilentWhileAllMove) {
  Ranks ranks;
  ranks.Run(3, [](Communicator& comm) {
    for (int step = 1; step <= 15; ++step) {
      EnterStep(step);
      if (comm.rank() == step % 3) std::this_thread::sleep_for(100ms);
      EnterPhase(Phase::kGradients, 0);
      comm.Barrier();
    }
  });
  EXPECT_THAT(ranks.said(), IsEmpty());
}

TEST(Watchdog, DoesNotMindWhoLeavesEarly) {
  Ranks ranks;
  ranks.Run(3, [](Communicator& comm) {
    for (int step = 1; step <= 15 && comm.rank() == 1; ++step) {
      EnterStep(step);
      std::this_thread::sleep_for(100ms);
    }
  });
  EXPECT_THAT(ranks.said(), IsEmpty());
}

TEST(Watchdog, NamesARankThatIsStuck) {
  for (const int stuck : {0, 1}) {
    Ranks ranks;
    ranks.Run(3, [&](Communicator& comm) {
      for (int step = 1; step <= 2; ++step) {
        EnterStep(step);
        EnterPhase(Phase::kCompute, 0);
      }
      EnterStep(3);
      if (comm.rank() == stuck) ranks.Hang();
      comm.AllReduce(nullptr, 0, CommType::kF32, ReduceOp::kSum, {}).Wait();
    });
    ASSERT_THAT(ranks.said(), SizeIs(1));
    EXPECT_THAT(ranks.said()[0],
                AllOf(HasSubstr("rank 0 says: rank " + std::to_string(stuck) + " has made no progress for"),
                      HasSubstr("step 3, in the loader"),
                      HasSubstr("(rank " + std::to_string(stuck) + ": process " + std::to_string(getpid()) +
                                " on host ")));
  }
}

TEST(Watchdog, NamesWhoGotLeastFarWhereAllWait) {
  Ranks ranks;
  ranks.Run(2, [&](Communicator& comm) {
    for (int step = 1; step <= 8 - comm.rank(); ++step) {
      EnterStep(step);
      EnterPhase(Phase::kGradients, 0);
    }
    const WaitingForPeers waiting;
    ranks.Hang();
  });
  ASSERT_THAT(ranks.said(), SizeIs(1));
  EXPECT_THAT(ranks.said()[0], HasSubstr("rank 1 made the least progress: step 7"));
}

TEST(Watchdog, WatchesASingleRank) {
  const auto comm = MakeSingleCommunicator();
  std::promise<std::string> said;
  auto watchdog = Watchdog::Start(
      *comm,
      {.deadline_seconds = 0.1, .on_failure = [&](const std::string& reason) { said.set_value(reason); }});
  ASSERT_TRUE(watchdog.ok());
  EXPECT_THAT(said.get_future().get(), HasSubstr("rank 0 has made no progress"));
}

TEST(WatchdogDeathTest, EndsTheJob) {
  const auto hang = [] {
    const auto comm = MakeSingleCommunicator();
    const auto watchdog = Watchdog::Start(*comm, {.deadline_seconds = 0.1});
    EnterStep(7);
    std::this_thread::sleep_for(20s);
  };
  EXPECT_EXIT(hang(), testing::ExitedWithCode(kCommunicationExitCode),
              "rank 0 has made no progress for .* step 7");
}

TEST(WatchdogDeathTest, SigtermTakesEffectLater) {
  const auto terminate = [] {
    const auto comm = MakeSingleCommunicator();
    const auto watchdog = Watchdog::Start(*comm, {.delay_sigterm = true});
    std::raise(SIGTERM);
    std::fputs("still here\n", stderr);
    std::this_thread::sleep_for(20s);
  };
  EXPECT_EXIT(terminate(), testing::KilledBySignal(SIGTERM), "still here");
}

// A pair of connected links.
std::pair<std::unique_ptr<PeerLink>, std::unique_ptr<PeerLink>> Pair() {
  int ends[2] = {-1, -1};
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  return {std::make_unique<PeerLink>(ends[0]), std::make_unique<PeerLink>(ends[1])};
}

TEST(PeerLink, BringsMessagesAndTheEnd) {
  auto [near, far] = Pair();
  for (int i = 0; i < 100; ++i) far->Send({.rank = i, .standing = 0.5 * i});
  far.reset();
  int next = 0;
  const bool open = near->Receive([&](const PeerMessage& message) {
    EXPECT_EQ(message.rank, next);
    EXPECT_EQ(message.standing, 0.5 * next++);
  });
  EXPECT_EQ(next, 100);
  EXPECT_FALSE(open);
}

TEST(PeerLink, DropsWholeMessagesWhenNobodyReads) {
  auto [near, far] = Pair();
  constexpr int kMany = 100000;
  for (int i = 0; i < kMany; ++i) far->Send({.rank = i});
  int count = 0, last = -1;
  const auto in_order = [&](const PeerMessage& message) {
    EXPECT_GT(message.rank, last);
    last = message.rank;
    ++count;
  };
  EXPECT_TRUE(near->Receive(in_order));
  EXPECT_LT(count, kMany);
  far->Send({.rank = kMany});
  far->Send({.rank = kMany + 1});
  EXPECT_TRUE(near->Receive(in_order));
  EXPECT_GE(last, kMany);
}

}  // namespace
}  // namespace deeper
