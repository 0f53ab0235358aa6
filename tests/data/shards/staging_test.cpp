#include "data/shards/staging.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <vector>

#include "data/io/atomic_file.h"
#include "data/io/directory_lock.h"
#include "data/load/dataset.h"
#include "data/shards/read_shards.h"
#include "tests/data/small_dataset.h"

namespace deeper {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// The message of a stager. It is the stager's only one, and its last action.
class Report {
 public:
  std::string Wait() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(said_.wait_for(lock, std::chrono::minutes(1), [&] { return !message_.empty(); }));
    return message_;
  }
  std::function<void(const std::string&)> Take() {
    return [this](const std::string& message) {
      const std::lock_guard lock(mutex_);
      message_ = message;
      said_.notify_all();
    };
  }

 private:
  std::mutex mutex_;
  std::condition_variable said_;
  std::string message_;
};

class StagingTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(Pack(SmallIdx(dir_)).ok()); }
  std::unique_ptr<Dataset> Open(Report* report) {
    absl::StatusOr<std::unique_ptr<Dataset>> data = OpenSplit(
        dir_ / "out", *ReadSplitIndex(dir_ / "out", "train"), {.stage = {dir_ / "local", report->Take()}});
    EXPECT_TRUE(data.ok()) << data.status();
    return *std::move(data);
  }
  std::vector<std::string> Staged() {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(dir_ / "local/deeper-shards"))
      if (entry.path().extension() == ".h5") names.push_back(entry.path().native());
    return names;
  }
  static void ExpectAllSamples(const Dataset& data) {
    Image image;
    for (int i = 0; i < 24; ++i) {
      ASSERT_TRUE(data.Read(i, &image).ok());
      EXPECT_EQ(image.pixels, MakeImage(7, 9, 1, i).pixels);
    }
  }

  ScratchDir dir_;
};

TEST_F(StagingTest, ReadsTheCopiesOnceTheyAreThere) {
  Report report;
  const std::unique_ptr<Dataset> data = Open(&report);
  ExpectAllSamples(*data);  // wherever they are by now
  EXPECT_THAT(report.Wait(), HasSubstr("3 shards copied to"));
  EXPECT_EQ(Staged().size(), 3u);
  for (const char* shard : {"0", "1", "2"})
    fs::resize_file(dir_ / ("out/train-0000" + std::string(shard) + "-of-00003.h5"), 0);
  ExpectAllSamples(*data);
}

TEST_F(StagingTest, LaterRunsUseTheCopiesAndRemoveLeftovers) {
  {
    Report report;
    const auto data = Open(&report);
    report.Wait();
  }
  const std::vector<std::string> copies = Staged();
  const auto written = fs::last_write_time(copies[0]);
  WriteBytes(copies[1] + ".tmp", Bytes(10));  // of a process that was killed
  fs::remove(copies[1]);
  WriteBytes(dir_ / "local/mine.tmp", Bytes(10));
  {
    Report report;
    const auto data = Open(&report);
    EXPECT_THAT(report.Wait(), HasSubstr("copied"));
  }
  EXPECT_THAT(Staged(), ::testing::UnorderedElementsAreArray(copies));
  EXPECT_EQ(fs::last_write_time(copies[0]), written);
  EXPECT_TRUE(fs::exists(dir_ / "local/mine.tmp"));
  Report report;
  const auto data = Open(&report);
  EXPECT_THAT(report.Wait(), HasSubstr("3 shards are already in"));
}

TEST_F(StagingTest, ADamagedOriginalIsNotStagedAndTheRunGoesOn) {
  Report report;
  const absl::StatusOr<std::string> index = ReadSplitIndex(dir_ / "out", "train");
  FlipBit(dir_ / "out/train-00001-of-00003.h5", fs::file_size(dir_ / "out/train-00001-of-00003.h5") - 1);
  const auto data = OpenSplit(dir_ / "out", *index, {.stage = {dir_ / "local", report.Take()}});
  ASSERT_TRUE(data.ok());
  EXPECT_THAT(report.Wait(), HasSubstr("train-00001-of-00003.h5 does not have the XXH3-128"));
  EXPECT_EQ(Staged().size(), 1u);
  ExpectAllSamples(**data);  // the flip is in the padding
}

TEST_F(StagingTest, ADamagedCopyIsReadFromTheOriginal) {
  Report report;
  const std::unique_ptr<Dataset> data = Open(&report);
  report.Wait();
  for (const std::string& copy : Staged()) WriteBytes(copy, Bytes(fs::file_size(copy)));
  ExpectAllSamples(*data);
}

// Another process holds the lock and copies. This one adopts the copies as they appear, and continues copying
// when the other process ends.
TEST_F(StagingTest, OneProcessCopiesAndTheNextTakesOver) {
  Report report;
  ASSERT_TRUE(CreateDirectories(dir_ / "local/deeper-shards").ok());
  std::unique_ptr<Dataset> data;
  {
    const absl::StatusOr<DirectoryLock> lock = DirectoryLock::Take(dir_ / "local/deeper-shards");
    ASSERT_TRUE(lock.ok());
    data = Open(&report);
    ExpectAllSamples(*data);
    EXPECT_TRUE(Staged().empty());
  }
  EXPECT_THAT(report.Wait(), HasSubstr("3 shards copied"));
}

TEST(Stager, SaysBeforehandThatThereIsNoRoom) {
  const ScratchDir dir;
  const absl::Status started =
      Stager::Start({dir / "local", {}}, {{dir / "x.h5", uint64_t{1} << 60, "0"}}, {}).status();
  EXPECT_EQ(started.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(started.message(), HasSubstr("staging needs 1152921504.6 GB"));
}

}  // namespace
}  // namespace deeper
