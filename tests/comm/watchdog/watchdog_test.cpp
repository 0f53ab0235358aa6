// Watchdogs of ranks that are threads. tests/faults covers processes that die or stop.
#include "comm/watchdog/watchdog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <functional>
#include <future>
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
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::UnorderedElementsAre;
using namespace std::chrono_literals;

constexpr double kDeadline = 4;  // longer than a thread waits for a core

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

TEST(ConnectPeers, FormsATreeInWhichNoRankHasManyLinks) {
  constexpr int kRanks = kFanOut + 4;  // the last three are below rank 1
  auto comms = MakeThreadCommunicators(kRanks);
  std::vector<std::thread> ranks;
  for (auto& comm : comms) {
    ranks.emplace_back([&] {
      const absl::StatusOr<std::vector<Peer>> peers = ConnectPeers(*comm);
      ASSERT_TRUE(peers.ok()) << peers.status();
      std::vector<int> numbers;
      for (const Peer& peer : *peers) {
        EXPECT_NE(peer.link, nullptr);
        numbers.push_back(peer.rank);
      }
      if (comm->rank() == 0) {
        EXPECT_THAT(numbers, SizeIs(kFanOut));
      } else if (comm->rank() == 1) {
        EXPECT_THAT(numbers, UnorderedElementsAre(0, 17, 18, 19));
      } else {
        EXPECT_THAT(numbers, ElementsAre(comm->rank() < 17 ? 0 : 1));
      }
    });
  }
  for (std::thread& rank : ranks) rank.join();
}

TEST(ConnectPeers, TheTreeIsShallow) {
  EXPECT_TRUE(IsBelow(4000, 0));
  EXPECT_TRUE(IsBelow(19, 1));
  EXPECT_FALSE(IsBelow(19, 2));
  EXPECT_FALSE(IsBelow(1, 19));
  int levels = 0;
  for (int rank = 4095; rank > 0; rank = ParentOf(rank)) ++levels;
  EXPECT_EQ(levels, 3);
}

constexpr int kSteps = 50;  // of 0.1 s; longer than kDeadline

TEST(Watchdog, IsSilentWhileAllMove) {
  Ranks ranks;
  ranks.Run(3, [](Communicator& comm) {
    for (int step = 1; step <= kSteps; ++step) {
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
    for (int step = 1; step <= kSteps && comm.rank() == 1; ++step) {
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

TEST(Watchdog, NamesAStuckRankThatIsNotAChildOfRankZero) {
  Ranks ranks;
  ranks.Run(kFanOut + 3, [&](Communicator& comm) {
    EnterStep(1);
    EnterStep(2);
    if (comm.rank() == kFanOut + 2) ranks.Hang();
    comm.AllReduce(nullptr, 0, CommType::kF32, ReduceOp::kSum, {}).Wait();
  });
  ASSERT_THAT(ranks.said(), SizeIs(1));
  EXPECT_THAT(
      ranks.said()[0],
      AllOf(
          HasSubstr("rank 0 says: rank 18 has made no progress for"),
          HasSubstr("All ranks: ranks 0-17: step 2, in the loader, waiting for its peers; rank 18: step 2")));
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
    const auto watchdog = Watchdog::Start(*comm, {.deadline_seconds = 1});
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
  for (int i = 0; i < 100; ++i) {
    PeerMessage message = {.rank = i};
    message.status.standing = 0.5 * i;
    far->Send(message);
  }
  far.reset();
  int next = 0;
  const bool open = near->Receive([&](const PeerMessage& message) {
    EXPECT_EQ(message.rank, next);
    EXPECT_EQ(message.status.standing, 0.5 * next++);
  });
  EXPECT_EQ(next, 100);
  EXPECT_FALSE(open);
}

TEST(PeerLink, ReceivesAfterItsLastMessage) {
  auto [near, far] = Pair();
  far->SendLast({.rank = 1});
  int last = 0;
  const auto read = [&](const PeerMessage& message) { last = message.rank; };
  EXPECT_FALSE(near->Receive(read));
  EXPECT_EQ(last, 1);
  EXPECT_EQ(near->error(), 0);
  near->Send({.rank = 2});
  EXPECT_TRUE(far->Receive(read));
  EXPECT_EQ(last, 2);
}

TEST(PeerLink, BringsTheLastMessageToAPeerThatDidNotRead) {
  auto [near, far] = Pair();
  constexpr int kMany = 100000;
  for (int i = 0; i < kMany; ++i) far->Send({.rank = i});
  far->SendLast({.rank = kMany});
  int last = -1;
  const auto read = [&](const PeerMessage& message) { last = message.rank; };
  for (int i = 0; i < 1000 && near->Receive(read); ++i) far->Receive(read);
  EXPECT_EQ(last, kMany);
  EXPECT_FALSE(near->Receive(read));
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
