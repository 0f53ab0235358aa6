#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "tests/trainer/monitor/watched.h"

namespace deeper {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr int64_t kWindow = 50;
constexpr int kCores = 4;

// The parts of a step of 100 ms, and the times of the loader's threads in it.
struct Step {
  double waiting = 0, uploading = 0;
  StageTimes spent{};  // idle, read, decode, augment
  int workers = kCores;
};

struct Finding {
  std::string stage, what;
};

class DataBottleneckTest : public ::testing::Test {
 protected:
  // The warning in this number of equal steps.
  std::optional<Finding> Run(int64_t steps, const Step& step) {
    watched_.events.clear();
    loader_.worker_count = step.workers;
    for (int64_t i = 0; i < steps; ++i) {
      StepReport report;
      report.data_wait_ms = step.waiting;
      report.upload_wait_ms = step.uploading;
      report.compute_ms = 90 - step.waiting;
      report.comm_wait_ms = 10;
      for (size_t stage = 0; stage < kStages; ++stage) loader_.stage_times[stage] += step.spent[stage];
      EXPECT_EQ(watched_.Observe(report), absl::OkStatus());
    }
    if (watched_.events.empty()) return std::nullopt;
    EXPECT_EQ(watched_.events.size(), 1u) << "said twice";
    const Event& event = watched_.events.front();
    EXPECT_EQ(event.name, "bottleneck");
    const Finding found = {event.fields.at("stage"), event.fields.at("what")};
    EXPECT_EQ(event.text, "warning: " + found.what);
    return found;
  }
  void ExpectFound(const Step& step, const char* stage, const char* advice) {
    const auto found = Run(kWindow, step);
    ASSERT_TRUE(found) << stage;
    EXPECT_EQ(found->stage, stage);
    EXPECT_THAT(found->what, EndsWith(advice));
  }

  const Model model_;
  const std::unique_ptr<Communicator> comm_ = MakeSingleCommunicator();
  FakeLoader loader_;
  Watched watched_{
      WatchDataBottleneck({.model = model_, .comm = *comm_, .loader = loader_, .cores = kCores})};
};

TEST_F(DataBottleneckTest, SaysNothingOfARunThatHardlyWaits) {
  EXPECT_FALSE(Run(5 * kWindow, {9, 9, {0, 300, 50, 50}}));
}

TEST_F(DataBottleneckTest, SaysHowLongItWaitsAndWhatTheThreadsDo) {
  EXPECT_FALSE(Run(kWindow - 1, {37, 0, {999, 12, 324, 64}, 2}));
  const auto found = Run(1, {37, 0, {999, 12, 324, 64}, 2});
  ASSERT_TRUE(found);
  EXPECT_EQ(found->stage, "decode");
  EXPECT_EQ(
      found->what,
      "training waits for data 37 % of the time; the work of 2 loader threads is 3 % reading, 81 % decoding, "
      "16 % augmenting; to reduce this, use --workers=4 (the cores of the rank) or --workers=0");
  EXPECT_FALSE(Run(5 * kWindow, {37, 0, {999, 12, 324, 64}, 2}));
}

TEST_F(DataBottleneckTest, Read) {
  ExpectFound({50, 0, {999, 200, 100, 100}, 1}, "read", "--stage_dir on a local disk, or --order=block");
}

TEST_F(DataBottleneckTest, DecodeOnAllCores) {
  ExpectFound({50, 0, {999, 100, 200, 100}}, "decode",
              "more cores per rank, or data packed with --resize or --encoding=raw");
}

TEST_F(DataBottleneckTest, AugmentOnAllCores) {
  ExpectFound({50, 0, {999, 100, 100, 200}}, "augment", "more cores per rank, or a simpler --augment");
}

TEST_F(DataBottleneckTest, UploadIfThatKeepsTheStepWaitingLonger) {
  const auto found = Run(kWindow, {11, 25, {0, 300, 50, 50}});
  ASSERT_TRUE(found);
  EXPECT_EQ(found->stage, "upload");
  EXPECT_THAT(found->what, StartsWith("the device waits for uploads 25 % of the time; "));
}

// The times of an earlier window do not count in a later one.
TEST_F(DataBottleneckTest, LooksAtEachWindowByItself) {
  EXPECT_FALSE(Run(kWindow, {1, 0, {0, 9000, 0, 0}}));
  const auto found = Run(kWindow, {12, 0, {0, 100, 300, 0}});
  ASSERT_TRUE(found);
  EXPECT_EQ(found->stage, "decode");
  EXPECT_THAT(found->what, HasSubstr("12 % of the time"));
  EXPECT_THAT(found->what, HasSubstr("25 % reading, 75 % decoding"));
}

}  // namespace
}  // namespace deeper
