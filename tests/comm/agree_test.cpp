#include "comm/agree.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/base/exit_code.h"
#include "kernels/base/input_output.h"
#include "tests/comm/threads_communicator.h"

namespace deeper {
namespace {

// The status of each of `ranks` ranks when those in `failing` fail, with kDone without an exit code.
std::vector<absl::Status> AgreeAmong(int ranks, const std::vector<int>& failing,
                                     ExitCode code = ExitCode::kData) {
  auto comms = MakeThreadCommunicators(ranks);
  std::vector<absl::Status> results(static_cast<size_t>(ranks));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      absl::Status mine;
      for (int f : failing) {
        if (f == rank) mine = absl::DataLossError("shard " + std::to_string(rank));
        if (code != ExitCode::kDone) mine = WithExitCode(mine, code);
      }
      results[static_cast<size_t>(rank)] = Agree(*comms[static_cast<size_t>(rank)], mine);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return results;
}

TEST(AgreeTest, AllWell) {
  for (const absl::Status& status : AgreeAmong(3, {})) EXPECT_TRUE(status.ok());
}

TEST(AgreeTest, LowestFailureReachesAll) {
  for (const absl::Status& status : AgreeAmong(4, {3, 1})) {
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(status.message(), "rank 1: shard 1");
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kData);
  }
}

TEST(AgreeTest, AnExitCodeMayBeGivenLater) {
  for (const absl::Status& status : AgreeAmong(2, {1}, ExitCode::kDone))
    EXPECT_EQ(ExitCodeOf(WithExitCode(status, ExitCode::kCheckpoint)), ExitCode::kCheckpoint);
}

TEST(AgreeTest, ASecondTimeKeepsTheRankThatFailed) {
  auto comms = MakeThreadCommunicators(2);
  absl::Status results[2];
  const auto twice = [&](int rank, const absl::Status& mine) {
    results[rank] = Agree(*comms[rank], Agree(*comms[rank], mine));
  };
  for (const auto& [message, agreed] :
       {std::pair("gone", "rank 1: gone"), std::pair("rank 12", "rank 1: rank 12"),
        std::pair("rank : none", "rank 1: rank : none"), std::pair("rank 3: left", "rank 3: left")}) {
    std::thread other([&] { twice(1, absl::NotFoundError(message)); });
    twice(0, absl::OkStatus());
    other.join();
    for (const absl::Status& status : results) EXPECT_EQ(status.message(), agreed);
  }
}

TEST(AgreeTest, KeepsTheMarkOfFailuresOfFiles) {
  auto comms = MakeThreadCommunicators(2);
  absl::Status results[2];
  std::thread other([&] { results[1] = Agree(*comms[1], AsInputOutput(absl::NotFoundError("gone"))); });
  results[0] = Agree(*comms[0], absl::OkStatus());
  other.join();
  for (const absl::Status& status : results) {
    EXPECT_TRUE(IsInputOutput(status));
    EXPECT_TRUE(IsInputOutput(WithExitCode(status, ExitCode::kCheckpoint)));
  }
}

TEST(AgreeTest, OneRankSaysItPlainly) {
  auto comm = MakeSingleCommunicator();
  EXPECT_EQ(Agree(*comm, absl::NotFoundError("gone")).message(), "gone");
}

TEST(AgreeTest, AValueIsTheRanksOwnIfAllHaveOne) {
  for (const bool fails : {false, true}) {
    auto comms = MakeThreadCommunicators(2);
    absl::StatusOr<std::unique_ptr<int>> results[2];
    std::thread other([&] {
      absl::StatusOr<std::unique_ptr<int>> mine = std::make_unique<int>(1);
      if (fails) mine = absl::NotFoundError("nothing");
      results[1] = Agree(*comms[1], std::move(mine));
    });
    results[0] = Agree(*comms[0], absl::StatusOr<std::unique_ptr<int>>(std::make_unique<int>(0)));
    other.join();
    for (int rank = 0; rank < 2; ++rank) {
      ASSERT_EQ(results[rank].ok(), !fails);
      EXPECT_EQ(results[rank].status().message(), fails ? "rank 1: nothing" : "");
      EXPECT_EQ(fails ? rank : **results[rank], rank);
    }
  }
}

TEST(ExitCodeTest, FirstMarkStays) {
  const absl::Status data = WithExitCode(absl::DataLossError("x"), ExitCode::kData);
  EXPECT_EQ(ExitCodeOf(WithExitCode(data, ExitCode::kCheckpoint)), ExitCode::kData);
  EXPECT_EQ(ExitCodeOf(absl::InvalidArgumentError("x")), ExitCode::kUsage);
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), ExitCode::kDone);
}

}  // namespace
}  // namespace deeper
