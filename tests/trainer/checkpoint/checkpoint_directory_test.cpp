#include "trainer/checkpoint/checkpoint_directory.h"

#include <gmock/gmock.h>

#include "kernels/base/exit_code.h"
#include "tests/trainer/checkpoint/checkpoint_fixture.h"

namespace deeper {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

TEST_F(CheckpointTest, ADirectoryThatCannotBeWrittenIsNamed) {
  WriteBytes(directory_, "a file");
  directory_ += "/below";
  EXPECT_THAT(Message(Save(1)), AllOf(HasSubstr("cannot create"), HasSubstr(directory_)));
  EXPECT_THAT(Message(OpenCheckpointDirectory(directory_).status()), HasSubstr("cannot create directory"));
  fs::remove(fs::path(directory_).parent_path());
}

TEST_F(CheckpointTest, TheNewestStay) {
  for (int64_t step = 1; step <= 5; ++step) ASSERT_TRUE(Save(step, {.keep = 2}).ok());
  EXPECT_THAT(Listing(), ElementsAre("step-000000004", "step-000000005"));
}

TEST_F(CheckpointTest, RetentionLeavesLaterStepsAndDamagedOnesAlone) {
  for (const int64_t step : {2, 3, 8, 9}) ASSERT_TRUE(Save(step).ok());
  fs::remove(CheckpointManifestPath(StepDirectory(directory_, 3)));
  ASSERT_TRUE(Save(4, {.keep = 1}).ok());
  EXPECT_THAT(Listing(), ElementsAre("step-000000003", "step-000000004", "step-000000008", "step-000000009"));
}

TEST_F(CheckpointTest, ADamagedOneDoesNotTakeThePlaceOfASoundOne) {
  for (const int64_t step : {1, 2, 3}) ASSERT_TRUE(Save(step).ok());
  Damage(Shard(3));
  ASSERT_TRUE(Save(4, {.keep = 2}).ok());
  EXPECT_THAT(Listing(), ElementsAre("step-000000002", "step-000000003", "step-000000004"));

  // Nor does the best one, if it is damaged.
  for (const int64_t step : {5, 6, 7}) {
    TrainState state = ExampleState(step);
    state.top1 = 0.75 - 0.05 * static_cast<double>(step);
    ASSERT_TRUE(SaveCheckpoint(directory_, state, params_.store(), *single_).ok());
    if (step == 5) Damage(Shard(5));
  }
  ASSERT_TRUE(Save(8, {.keep = 1}).ok());
  EXPECT_THAT(Listing(), ElementsAre("step-000000005", "step-000000006", "step-000000008"));
}

TEST_F(CheckpointTest, MilestonesAndTheBestStay) {
  for (int64_t step = 1; step <= 8; ++step) {
    TrainState state = ExampleState(step);
    if (step % 2 == 0) state.top1 = step == 2 ? 0.75 : 0.5;
    ASSERT_TRUE(
        SaveCheckpoint(directory_, state, params_.store(), *single_, {.keep = 1, .keep_every = 3}).ok());
  }
  EXPECT_THAT(Listing(), ElementsAre("step-000000002", "step-000000003", "step-000000006", "step-000000008"));
  EXPECT_EQ(ReadCheckpointManifest(StepDirectory(directory_, 2))->top1, 0.75);
  EXPECT_EQ(ReadCheckpointManifest(StepDirectory(directory_, 3))->top1, std::nullopt);
}

TEST_F(CheckpointTest, NothingIsRemovedUnlessTheNewestReadsBackRight) {
  for (const int64_t step : {1, 2}) ASSERT_TRUE(Save(step).ok());
  Damage(Shard(2));
  EXPECT_THAT(Message(RemoveOldCheckpoints(directory_, 2, {.keep = 1})), HasSubstr(Shard(2)));
  EXPECT_THAT(Listing(), ElementsAre("step-000000001", "step-000000002"));
}

TEST_F(CheckpointTest, NothingIsRemovedFromADirectoryThatAnotherProcessHasTakenOver) {
  for (const int64_t step : {1, 2}) ASSERT_TRUE(Save(step).ok());
  const auto taken_over = [] { return absl::AbortedError("taken over"); };
  EXPECT_EQ(Message(RemoveOldCheckpoints(directory_, 2, {.keep = 1}, VerifyAlone, taken_over)), "taken over");
  EXPECT_THAT(Listing(), ElementsAre("step-000000001", "step-000000002"));
}

// As one on a file server that does not answer: the run must not start from scratch.
TEST_F(CheckpointTest, ADirectoryThatCannotBeExaminedIsNotAnEmptyOne) {
  fs::create_symlink(directory_, directory_);
  EXPECT_THAT(Message(Choose("latest").status()), HasSubstr("cannot examine " + directory_));
  EXPECT_THAT(Message(FindCheckpoint(directory_).status()), HasSubstr("cannot examine " + directory_));
  fs::remove(directory_);
}

TEST_F(CheckpointTest, AStepIsNeverOverwritten) {
  ASSERT_TRUE(Save(1).ok());
  EXPECT_TRUE(Save(1).ok()) << "the same state again";
  const std::string before = ReadBytes(Shard(1));
  params_.Fill(2);
  const absl::Status status = Save(1);
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(Message(status), HasSubstr("step-000000001 already exists"));
  EXPECT_EQ(ReadBytes(Shard(1)), before);
  EXPECT_THAT(Listing(), ElementsAre("step-000000001"));
}

TEST_F(CheckpointTest, LatestFallsBackToTheNewestValidOne) {
  EXPECT_EQ(Choose("latest")->path, "");
  for (int64_t step = 1; step <= 3; ++step) ASSERT_TRUE(Save(step).ok());
  EXPECT_EQ(Choose("latest")->path, StepDirectory(directory_, 3));
  EXPECT_THAT(Choose("latest")->warnings, IsEmpty());

  Damage(Shard(3));
  fs::remove(CheckpointManifestPath(StepDirectory(directory_, 2)));
  const CheckpointChoice choice = *Choose("latest");
  EXPECT_EQ(choice.path, StepDirectory(directory_, 1));
  EXPECT_THAT(choice.warnings, ElementsAre(AllOf(HasSubstr("cannot be used"), HasSubstr(Shard(3))),
                                           AllOf(HasSubstr("cannot be used"), HasSubstr("step-000000002"))));
  EXPECT_EQ(FindCheckpoint(directory_)->path, choice.path);

  Damage(CheckpointManifestPath(StepDirectory(directory_, 1)));
  EXPECT_EQ(Choose("latest").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(Message(Choose("latest").status()), HasSubstr("no usable checkpoint in " + directory_));
}

TEST_F(CheckpointTest, AnExplicitStepIsThatOneOrAnError) {
  for (int64_t step = 1; step <= 3; ++step) ASSERT_TRUE(Save(step).ok());
  EXPECT_EQ(Choose("3")->path, StepDirectory(directory_, 3));
  EXPECT_EQ(Choose("1").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(Choose("1").status()),
              AllOf(HasSubstr("also holds later steps, up to 3"), HasSubstr(StepDirectory(directory_, 1))));
  EXPECT_EQ(Choose("4").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(Choose("4").status()),
              AllOf(HasSubstr("no checkpoint of step 4"), HasSubstr("it holds steps 3, 2, 1")));
  Damage(Shard(3));
  EXPECT_EQ(Choose("3").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(Message(Choose("3").status()), HasSubstr(Shard(3)));
}

TEST_F(CheckpointTest, NeverNeedsADirectoryWithoutCheckpoints) {
  EXPECT_EQ(Choose("never")->path, "");
  ASSERT_TRUE(Save(6).ok());
  EXPECT_EQ(Choose("never").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(Choose("never").status()), HasSubstr("already holds checkpoints up to step 6"));
  EXPECT_THAT(Message(Choose("newest").status()), HasSubstr("'newest'"));
}

TEST_F(CheckpointTest, ADamagedOneMakesRoomForItsStep) {
  ASSERT_TRUE(Save(1).ok());
  Damage(Shard(1));
  const std::string damaged = ReadBytes(Shard(1));
  ASSERT_EQ(Save(1), absl::OkStatus());
  EXPECT_THAT(Listing(), ElementsAre("step-000000001", "step-000000001.damaged"));
  EXPECT_EQ(ReadBytes(StepDirectory(directory_, 1) + ".damaged/" + ShardName(0, 1)), damaged);
  EXPECT_EQ(Choose("latest")->path, StepDirectory(directory_, 1));
  Damage(Shard(1));
  EXPECT_EQ(Save(1).code(), absl::StatusCode::kAlreadyExists) << "there is no name left for it";
}

TEST_F(CheckpointTest, RankZeroChoosesForAll) {
  ASSERT_TRUE(Save(1).ok());
  OnRanks(3, [&](Communicator& comm) {
    // Only rank 0 reads the directory.
    const auto choice = ChooseCheckpoint(comm.rank() == 0 ? directory_ : "/nonexistent", "latest", comm);
    EXPECT_EQ(choice->path, StepDirectory(directory_, 1));
  });
}

TEST_F(CheckpointTest, LatestSkipsNoCheckpointThatIsOnlyOutOfReach) {
  for (const int64_t step : {1, 2}) ASSERT_TRUE(Save(step).ok());
  const auto away = [](const std::string& path) {
    return path.ends_with("2") ? absl::UnavailableError("no answer") : absl::OkStatus();
  };
  for (const char* resume : {"latest", "2"}) {
    const absl::Status status = ChooseCheckpointIn(directory_, resume, away).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(Message(status), AllOf(HasSubstr(StepDirectory(directory_, 2)), HasSubstr("no answer")));
  }
}

TEST_F(CheckpointTest, ASaveRenamesNoCheckpointThatIsOnlyOutOfReach) {
  ASSERT_TRUE(Save(1).ok());
  const CheckpointManifest manifest = *ReadCheckpointManifest(StepDirectory(directory_, 1));
  ASSERT_TRUE(CreateUnfinished(directory_, 1).ok());
  const auto away = [](const std::string&) { return absl::UnavailableError("no answer"); };
  EXPECT_EQ(CommitCheckpoint(directory_, manifest, away).code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Listing(), ElementsAre(".tmp-step-000000001", "step-000000001"));
}

TEST_F(CheckpointTest, RanksVerifyTheirPartsOfACheckpoint) {
  OnRanks(3, [&](Communicator& comm) {
    ExampleParams params;
    ASSERT_TRUE(SaveCheckpoint(directory_, ExampleState(1), params.store(), comm).ok());
  });
  Damage(StepDirectory(directory_, 1) + "/" + ShardName(0, 3));
  OnRanks(3, [&](Communicator& comm) {
    int meetings = 0;
    std::string found;
    VerifyTogether(
        comm,
        [&](const CheckpointVerifier& verify) { found = Message(verify(StepDirectory(directory_, 1))); },
        [&] { ++meetings; });
    EXPECT_EQ(meetings, 3);
    const std::string expected = comm.rank() == 0 ? "rank 2: " : "";
    EXPECT_THAT(found, StartsWith(expected));
  });
}

TEST_F(CheckpointTest, OpeningTheDirectoryLocksItAndChangesNothing) {
  ASSERT_TRUE(Save(1).ok());
  fs::create_directories(UnfinishedStepDirectory(directory_, 2));
  const absl::StatusOr<DirectoryLock> lock = OpenCheckpointDirectory(directory_);
  ASSERT_TRUE(lock.ok()) << lock.status();
  EXPECT_THAT(Listing(), ElementsAre(".deeper-lock", ".tmp-step-000000002", "step-000000001"));
  EXPECT_THAT(Message(OpenCheckpointDirectory(directory_).status()), HasSubstr("in use"));
}

TEST_F(CheckpointTest, OnlyInterruptedSavesAreRemoved) {
  ASSERT_TRUE(Save(1).ok());
  fs::create_directories(UnfinishedStepDirectory(directory_, 2));
  WriteBytes(UnfinishedStepDirectory(directory_, 2) + "/" + ShardName(0, 1), "half");
  for (const char* theirs : {".tmp-thesis", ".tmp-step-", ".tmp-step-2b", ".tmp-step-+3", ".tmp-list"})
    fs::create_directories(directory_ + "/" + theirs + "/below");
  EXPECT_EQ(RemoveInterruptedSaves(directory_), absl::OkStatus());
  EXPECT_THAT(Listing(), ElementsAre(".tmp-list", ".tmp-step-", ".tmp-step-+3", ".tmp-step-2b", ".tmp-thesis",
                                     "step-000000001"));
}

TEST_F(CheckpointTest, OnlyDigitsAreAStep) {
  ASSERT_TRUE(Save(1).ok());
  for (const char* theirs : {"step-+9", "step-1e3", "step- 7"})
    fs::create_directories(directory_ + "/" + theirs);
  EXPECT_EQ(ListCheckpoints(directory_)->size(), 1);
  EXPECT_EQ(Choose("latest")->path, StepDirectory(directory_, 1));
}

TEST_F(CheckpointTest, VerifyNamesEveryProblem) {
  EXPECT_THAT(VerifyCheckpoint(directory_), ElementsAre(HasSubstr("is not a checkpoint and holds none")));
  ASSERT_TRUE(Save(1).ok());
  ASSERT_TRUE(Save(2).ok());
  EXPECT_THAT(VerifyCheckpoint(directory_), IsEmpty());
  Damage(Shard(1));
  fs::remove(Shard(2));
  EXPECT_THAT(VerifyCheckpoint(directory_), ElementsAre(HasSubstr(Shard(1)), HasSubstr(Shard(2))));
}

}  // namespace
}  // namespace deeper
