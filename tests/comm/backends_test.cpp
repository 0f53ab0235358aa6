// The communicators that need no launcher.
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "comm/mpi/launcher.h"
#include "comm/mpi/mpi_communicator.h"
#include "tests/comm/on_every_backend.h"
#include "tests/comm/threads_communicator.h"

namespace deeper {
namespace {

void RunOnThreads(int size, const RankBody& body) {
  auto communicators = MakeThreadCommunicators(size);
  std::vector<std::thread> ranks;
  for (auto& communicator : communicators) ranks.emplace_back([&] { body(*communicator); });
  for (std::thread& rank : ranks) rank.join();
}

Backend Threads(int size) {
  return {"Threads" + std::to_string(size), [size](const RankBody& body) { RunOnThreads(size, body); }};
}

Backend Single() {
  return {"Single", [](const RankBody& body) { body(*MakeSingleCommunicator()); }};
}

INSTANTIATE_TEST_SUITE_P(Comm, OnEveryBackend,
                         testing::Values(Single(), Threads(1), Threads(2), Threads(3), Threads(4)),
                         BackendName);

TEST(SingleCommunicator, AbortEndsTheProcessWithTheCodeAndTheReason) {
  const auto comm = MakeSingleCommunicator();
  EXPECT_EXIT(comm->Abort(kCommunicationExitCode, "lost"), testing::ExitedWithCode(5), "deeper: lost");
}

TEST(ThreadCommunicator, AbortNamesTheRank) {
  const auto comms = MakeThreadCommunicators(3);
  EXPECT_EXIT(comms[2]->Abort(75, "preempted"), testing::ExitedWithCode(75), "rank 2 of 3: preempted");
}

TEST(ThreadCommunicatorDeathTest, RanksThatDisagreeFail) {
  EXPECT_DEATH(
      RunOnThreads(
          2,
          [](Communicator& comm) {
            std::vector<float> data(3);
            comm.AllReduce(data.data(), comm.rank() == 0 ? 2 : 3, CommType::kF32, ReduceOp::kSum, {}).Wait();
          }),
      "calls AllReduce of . where another calls AllReduce of .");
}

TEST(RequestDeathTest, MustNotBeDroppedUnderWay) {
  EXPECT_DEATH(
      {
        const auto comms = MakeThreadCommunicators(2);
        comms[0]->AllReduce(nullptr, 0, CommType::kF32, ReduceOp::kSum, {});
      },
      "still in progress");
}

TEST(LaunchedByMpi, AsksTheEnvironment) {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) unsetenv(variable);
  EXPECT_FALSE(LaunchedByMpi());
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) {
    setenv(variable, "1", 1);
    EXPECT_TRUE(LaunchedByMpi()) << variable;
    unsetenv(variable);
  }
}

}  // namespace
}  // namespace deeper
