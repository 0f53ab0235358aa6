#include "comm/watchdog/lateness.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <thread>
#include <vector>

namespace deeper {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using Kind = Verdict::Kind;

constexpr double kDeadline = 10;

RankStatus Working(Phase phase, double standing) {
  RankStatus status;
  status.mark = {.step = 17, .phase = phase};
  status.standing = standing;
  return status;
}

RankStatus Waiting(double standing, int64_t marks = 100) {
  RankStatus status = Working(Phase::kGradients, standing);
  status.mark.waiting = true;
  status.mark.marks = marks;
  return status;
}

std::string Said(const std::vector<RankStatus>& ranks) {
  const std::optional<Verdict> verdict = Judge(ranks, kDeadline);
  return verdict.has_value() ? Describe(*verdict, kDeadline) : "";
}

TEST(Judge, IsContentWithinTheDeadline) {
  RankStatus quiet = Waiting(9);
  quiet.silent = 9;
  EXPECT_EQ(Said({Working(Phase::kLoader, 9), quiet, Working(Phase::kBackward, 0)}), "");
}

TEST(Judge, NamesWhoeverDoesNotWait) {
  const std::vector<RankStatus> ranks = {Waiting(30), Working(Phase::kLoader, 11), Waiting(30)};
  const std::optional<Verdict> verdict = Judge(ranks, kDeadline);
  ASSERT_TRUE(verdict.has_value());
  EXPECT_EQ(verdict->kind, Kind::kLate);
  EXPECT_EQ(verdict->rank, 1);
  EXPECT_THAT(Said(ranks), HasSubstr("rank 1 has made no progress for 11.0 s: step 17, in the loader"));
}

TEST(Judge, NamesTheLatestAndCountsTheOthers) {
  EXPECT_THAT(Said({Working(Phase::kLoader, 11), Working(Phase::kUpdate, 12), Working(Phase::kLoader, 0),
                    Working(Phase::kLoader, 11)}),
              HasSubstr("rank 1 (and 2 more ranks) has made no progress for 12.0 s"));
}

TEST(Judge, BlamesAllWhereAllWait) {
  EXPECT_EQ(Said({Waiting(11), Waiting(9)}), "");
  EXPECT_THAT(
      Said({Waiting(11, 100), Waiting(12, 98)}),
      HasSubstr("all ranks have waited for each other for 12.0 s (--watchdog_seconds=10); rank 1 made "
                "the least progress: step 17"));
}

// Ranks of GPUs wait for their device and for their peers in one call, and have as many marks.
TEST(Judge, BlamesNobodyWhereNobodyIsBehind) {
  EXPECT_THAT(Said({Waiting(11, 100), Waiting(12, 100)}),
              AllOf(HasSubstr("; none is behind the others: step 17"), Not(HasSubstr("least progress"))));
}

TEST(Judge, NamesTheRanksInAnEarlierStepWhereAllWait) {
  RankStatus late = Waiting(12, 90);
  late.mark.step = 16;
  EXPECT_THAT(Said({Waiting(11), late, Waiting(12)}),
              HasSubstr("; rank 1 is behind step 17 of the others; rank 1 made the least progress: step 16"));
  RankStatus later = late;
  later.mark = {.step = 15, .marks = 80, .phase = Phase::kGradients, .waiting = true};
  EXPECT_THAT(
      Said({late, Waiting(12), later}),
      HasSubstr("; ranks 0, 2 are behind step 17 of the others; rank 2 made the least progress: step 15"));
  const std::vector<RankStatus> many(11, late);
  std::vector<RankStatus> ranks = {Waiting(12)};
  ranks.insert(ranks.end(), many.begin(), many.end());
  EXPECT_THAT(Said(ranks), HasSubstr("ranks 1, 2, 3, 4, 5, 6, 7, 8 and 3 more are behind step 17"));
}

TEST(Judge, DoesNotBlameTheNetworkOfALoneRank) {
  EXPECT_THAT(Said({Waiting(12)}), AllOf(HasSubstr("the only rank has waited for 12.0 s"),
                                         HasSubstr("Its device"), Not(HasSubstr("network"))));
}

TEST(Judge, GivesUnhurriedPhasesLonger) {
  RankStatus first = Working(Phase::kCompute, 39);
  first.mark.unhurried = true;
  EXPECT_EQ(Said({Waiting(39), first}), "");
  first.standing = 41;
  EXPECT_THAT(Said({Waiting(41), first}), HasSubstr("rank 1 has made no progress"));
}

TEST(Judge, NamesSilentAndGoneRanksFirst) {
  RankStatus silent = Waiting(0), gone = Working(Phase::kEvaluation, 0);
  silent.silent = 10.5;
  gone.gone = true;
  gone.silent = 0.2;
  const RankStatus late = Working(Phase::kLoader, 50);
  EXPECT_THAT(Said({late, silent}), HasSubstr("rank 1 has sent no heartbeat for 10.5 s"));
  EXPECT_THAT(Said({late, silent, gone}), HasSubstr("rank 2 was lost: its process ended"));
  gone.error = ETIMEDOUT;
  EXPECT_THAT(Said({late, silent, gone}), HasSubstr("rank 2 was lost: its connection failed: Connection "
                                                    "timed out; last seen 0.2 s ago, in step 17"));
}

TEST(Judge, MindsNoRankThatLeft) {
  RankStatus left = Working(Phase::kReport, 50);
  left.silent = 50;
  left.left = true;
  EXPECT_EQ(Said({left, Waiting(50)}), "");
  EXPECT_THAT(Said({left, Working(Phase::kCheckpoint, 50)}), HasSubstr("rank 1 has made no progress"));
}

TEST(DescribeAll, GroupsRanksByTheirPlace) {
  RankStatus left = Waiting(0);
  left.left = true;
  const std::vector<RankStatus> ranks = {Waiting(1), Working(Phase::kLoader, 1), Waiting(2), Waiting(3), left,
                                         Waiting(0)};
  EXPECT_EQ(DescribeAll(ranks),
            "ranks 0, 2-3, 5: step 17, all-reduce of the gradients, waiting for its peers; rank 1: step 17, "
            "in the loader");
  EXPECT_THAT(DescribeAll(ranks, 1), HasSubstr("waiting for its peers; 1 more places"));
}

class Marks : public testing::Test {
 protected:
  Marks() { CarryPhaseBoard(&board_); }
  ~Marks() override { CarryPhaseBoard(nullptr); }
  PhaseBoard board_;
};

TEST_F(Marks, SayWhereTheThreadIs) {
  EXPECT_EQ(Describe(board_.Read()), "start-up");
  EnterStep(3);
  EXPECT_EQ(Describe(board_.Read()), "step 3, in the loader");
  EnterPhase(Phase::kGradients, 2);
  {
    const WaitingForPeers waiting;
    EXPECT_EQ(Describe(board_.Read()), "step 3, all-reduce 2 of the gradients, waiting for its peers");
  }
  EXPECT_EQ(Describe(board_.Read()), "step 3, all-reduce 2 of the gradients");
}

TEST(ReportDelay, LeavesTimeToTheRanksThatReportFirst) {
  constexpr double kMpirunKillsAfter = 2;  // seconds
  EXPECT_EQ(ReportDelay(0, 8), 0);
  EXPECT_EQ(ReportDelay(1, 8), 0);
  for (const int stand_in : {2, 8}) {
    EXPECT_GT(ReportDelay(stand_in, 8), 0);
    EXPECT_LT(ReportDelay(stand_in, 8), kMpirunKillsAfter);
  }
  for (const int other : {3, 7, 9, 100}) EXPECT_GT(ReportDelay(other, 8), 2 * kMpirunKillsAfter);
  EXPECT_GT(ReportDelay(8, /*elsewhere=*/-1), 2 * kMpirunKillsAfter);
}

TEST_F(Marks, CountWhatHappens) {
  const int64_t before = board_.Read().marks;
  EnterPhase(Phase::kBackward, 1);
  EnterPhase(Phase::kBackward, 1);
  EXPECT_EQ(board_.Read().marks, before + 2);
  { const WaitingForPeers waiting; }
  EXPECT_EQ(board_.Read().marks, before + 4);
}

TEST_F(Marks, AreUnhurriedTheFirstTimeAndInCheckpoints) {
  EXPECT_TRUE(board_.Read().unhurried);
  for (const bool first : {true, false}) {
    EnterStep(first ? 1 : 2);
    EnterPhase(Phase::kLoader);  // still the same phase
    EXPECT_EQ(board_.Read().unhurried, first);
    EnterPhase(Phase::kCompute);
    EXPECT_EQ(board_.Read().unhurried, first);
    EnterPhase(Phase::kCheckpoint);
    EXPECT_TRUE(board_.Read().unhurried);
  }
}

TEST_F(Marks, AreThoseOfTheThreadThatCarriesTheBoard) {
  std::thread([] { EnterStep(5); }).join();
  EXPECT_EQ(board_.Read().step, 0);
}

}  // namespace
}  // namespace deeper
