#include "kernels/cuda/plans/plan_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "tests/data/scratch.h"

namespace deeper {
namespace {

using ::testing::HasSubstr;
using ::testing::Optional;
using ::testing::StrEq;

constexpr char kGpu[] = "NVIDIA H100 80GB HBM3, 132 SMs";
constexpr char kOtherGpu[] = "NVIDIA A100-SXM4-40GB, 108 SMs";

class PlanCacheTest : public ::testing::Test {
 protected:
  PlanCache Open(const std::string& environment = kGpu) const { return PlanCache(file_, environment); }
  void Write(const std::string& text) const { std::ofstream(file_) << text; }
  std::string Read() const {
    std::ifstream in(file_);
    return std::string(std::istreambuf_iterator<char>(in), {});
  }
  std::string TheRecord() const {  // of the only trial; there is no cache yet
    return std::filesystem::directory_iterator(dir_.path())->path();
  }

  const ScratchDir dir_;
  const std::string file_ = dir_ / "plans.json";
};

TEST_F(PlanCacheTest, WithoutAFileLastsAsLongAsTheObject) {
  PlanCache cache("", kGpu);
  EXPECT_EQ(cache.Find("conv"), std::nullopt);
  ASSERT_TRUE(cache.Put("conv", "engine 1").ok());
  EXPECT_THAT(cache.Find("conv"), Optional(StrEq("engine 1")));
  EXPECT_TRUE(std::filesystem::is_empty(dir_.path()));
}

TEST_F(PlanCacheTest, FindsWhatAnEarlierRunPut) {
  const std::string plan = "{\"engine\": \"41\"}\n\t\\ \xc3\xa9";  // any text
  ASSERT_TRUE(Open().Put("conv", plan).ok());
  ASSERT_TRUE(Open().Put("matmul", "0a0b").ok());
  EXPECT_THAT(Open().Find("conv"), Optional(StrEq(plan)));
  EXPECT_THAT(Open().Find("matmul"), Optional(StrEq("0a0b")));
  EXPECT_EQ(Open().Find("conv + relu"), std::nullopt);
}

TEST_F(PlanCacheTest, ReplacesAnEntry) {
  PlanCache cache = Open();
  ASSERT_TRUE(cache.Put("conv", "engine 1").ok());
  ASSERT_TRUE(cache.Put("conv", "engine 2").ok());
  EXPECT_THAT(cache.Find("conv"), Optional(StrEq("engine 2")));
  EXPECT_THAT(Open().Find("conv"), Optional(StrEq("engine 2")));
}

TEST_F(PlanCacheTest, OtherEnvironmentsAreNotOursAndStay) {
  ASSERT_TRUE(Open(kOtherGpu).Put("conv", "theirs").ok());
  EXPECT_EQ(Open().Find("conv"), std::nullopt);
  ASSERT_TRUE(Open().Put("conv", "ours").ok());
  EXPECT_THAT(Open(kOtherGpu).Find("conv"), Optional(StrEq("theirs")));
  EXPECT_THAT(Open().Find("conv"), Optional(StrEq("ours")));
}

TEST_F(PlanCacheTest, MergesWhatAnotherRankWroteMeanwhile) {
  PlanCache first = Open(), second = Open();
  ASSERT_TRUE(first.Put("conv1", "first").ok());
  ASSERT_TRUE(second.Put("conv2", "second").ok());
  ASSERT_TRUE(first.Put("conv3", "first").ok());
  ASSERT_TRUE(second.Put("conv1", "second").ok()) << "the last tuned plan";
  EXPECT_THAT(Open().Find("conv1"), Optional(StrEq("second")));
  EXPECT_THAT(Open().Find("conv2"), Optional(StrEq("second")));
  EXPECT_THAT(Open().Find("conv3"), Optional(StrEq("first")));
}

TEST_F(PlanCacheTest, WritesAgainWhatAnotherWriteLost) {
  PlanCache cache = Open();
  ASSERT_TRUE(cache.Put("conv1", "a").ok());
  std::filesystem::remove(file_);
  ASSERT_TRUE(cache.Put("conv2", "b").ok());
  EXPECT_THAT(Open().Find("conv1"), Optional(StrEq("a")));
}

TEST_F(PlanCacheTest, WhatIsNoCacheIsIgnoredAndReplaced) {
  ASSERT_TRUE(Open().Put("conv", "good").ok());
  const std::string good = Read();
  const std::string gpu = std::string("\"") + kGpu + "\"";
  const std::vector<std::string> bad = {
      "",
      "nonsense",
      "[]",
      "{}",
      "null",
      good.substr(0, good.size() / 2),
      "{\"format\": 1, \"plans\": []}",
      "{\"format\": 2, \"plans\": {" + gpu + ": {\"conv\": \"of a later format\"}}}",
      "{\"plans\": {" + gpu + ": {\"conv\": \"of no format\"}}}",
      "{\"format\": 1, \"plans\": {" + gpu + ": \"conv\"}}",
      "{\"format\": 1, \"plans\": {" + gpu + ": {\"conv\": 7, \"conv2\": null}}}",
  };
  for (const std::string& text : bad) {
    SCOPED_TRACE(text);
    Write(text);
    PlanCache cache = Open();
    EXPECT_EQ(cache.Find("conv"), std::nullopt);
    ASSERT_TRUE(cache.Put("conv", "new").ok());
    EXPECT_THAT(Open().Find("conv"), Optional(StrEq("new")));
  }
}

TEST_F(PlanCacheTest, TextThatIsNotUtf8DoesNoHarm) {
  PlanCache cache = Open();
  ASSERT_TRUE(cache.Put("conv", "\xff\xfe").ok());
  ASSERT_TRUE(cache.Put("matmul", "0a").ok());
  EXPECT_THAT(Open().Find("matmul"), Optional(StrEq("0a")));
}

TEST_F(PlanCacheTest, SaysWhyItCannotWrite) {
  PlanCache cache("/dev/null/plans.json", kGpu);
  const absl::Status status = cache.Put("conv", "engine 1");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/dev/null/plans.json: Not a directory"));
  EXPECT_THAT(cache.Find("conv"), Optional(StrEq("engine 1")));
}

TEST_F(PlanCacheTest, MakesItsDirectory) {
  const std::string file = dir_ / "new" + "/and/deep/plans.json";
  ASSERT_TRUE(PlanCache(file, kGpu).Put("conv", "engine 1").ok());
  EXPECT_THAT(PlanCache(file, kGpu).Find("conv"), Optional(StrEq("engine 1")));
}

// Concurrent writers may lose entries, but the file is always complete and no temporary file remains.
TEST_F(PlanCacheTest, RanksThatWriteAtTheSameTime) {
  ASSERT_TRUE(Open().Put("base", "kept").ok());
  std::atomic<int> writing = 3;
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 3; ++rank) {
    ranks.emplace_back([&, rank] {
      PlanCache cache = Open();
      for (int i = 0; i < 20; ++i) {
        EXPECT_TRUE(
            cache.Put("conv" + std::to_string(i), std::string(1000, static_cast<char>('a' + rank))).ok());
      }
      --writing;
    });
  }
  while (writing > 0) EXPECT_THAT(Open().Find("base"), Optional(StrEq("kept")));
  for (std::thread& rank : ranks) rank.join();
  for (int i = 0; i < 20; ++i) EXPECT_NE(Open().Find("conv" + std::to_string(i)), std::nullopt) << i;
  const std::filesystem::directory_iterator files(dir_.path());
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

// A record with the fields of the one that this process wrote, but for `changes`.
std::string Changed(const std::string& file, const nlohmann::json& changes) {
  std::ifstream in(file);
  nlohmann::json record = nlohmann::json::parse(in);
  record.update(changes);
  return record.dump();
}

int EndedProcess() {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  return child;
}

TEST_F(PlanCacheTest, RemembersWhichAlgorithmAProcessDidNotSurvive) {
  const absl::Status ran = Open().OnTrial("deeper sm90 128x64", "conv1", [&] {
    EXPECT_TRUE(Open().FailedTrials().empty()) << "this process is alive";
    const std::string record = TheRecord();
    const std::string ended = Changed(record, {{"pid", EndedProcess()}});
    std::ofstream(record) << ended;
    const auto failed = Open().FailedTrials();
    ASSERT_EQ(failed.size(), 1u);
    EXPECT_EQ(failed[0].algorithm, "deeper sm90 128x64");
    EXPECT_EQ(failed[0].problem, "conv1");
    EXPECT_EQ(failed[0].record, record);
    EXPECT_TRUE(Open(kOtherGpu).FailedTrials().empty());
  });
  EXPECT_EQ(ran, absl::OkStatus());
  EXPECT_TRUE(Open().FailedTrials().empty());
  EXPECT_TRUE(std::filesystem::is_empty(dir_.path()));
}

// A container that was started again: the processes of the second have the numbers of the first.
TEST_F(PlanCacheTest, ARecordOfAnEarlierProcessWithTheSameNumberCounts) {
  const absl::Status ran = Open().OnTrial("deeper sm80 128x64", "conv1", [&] {
    const std::string record = TheRecord();
    const std::string earlier = Changed(record, {{"started", 1}});
    std::ofstream(record) << earlier;
    EXPECT_EQ(Open().FailedTrials().size(), 1u);
  });
  EXPECT_EQ(ran, absl::OkStatus());
}

TEST_F(PlanCacheTest, ARecordOfAnotherHostCountsOnceItIsOld) {
  const absl::Status ran = Open().OnTrial("deeper sm80 128x64", "conv1", [&] {
    const std::string record = TheRecord();
    const std::string elsewhere = Changed(record, {{"host", "elsewhere"}});
    std::ofstream(record) << elsewhere;
    EXPECT_TRUE(Open().FailedTrials().empty()) << "perhaps it still runs";
    const auto now = std::filesystem::file_time_type::clock::now();
    std::filesystem::last_write_time(record, now - std::chrono::minutes(2));
    EXPECT_EQ(Open().FailedTrials().size(), 1u);
  });
  EXPECT_EQ(ran, absl::OkStatus());
}

TEST_F(PlanCacheTest, WithoutARecordTheAlgorithmDoesNotRun) {
  const PlanCache inside_a_file("/dev/null/plans.json", kGpu);
  const absl::Status ran = inside_a_file.OnTrial("deeper sm80 128x64", "conv1", [] { FAIL(); });
  EXPECT_THAT(std::string(ran.message()), HasSubstr("/dev/null/plans.json"));
}

TEST_F(PlanCacheTest, WhatIsNoRecordIsIgnored) {
  for (const char* text : {"", "nonsense", "[]", "{}", "{\"environment\": 7}"}) {
    std::ofstream(file_ + ".trial.abcdef") << text;
    EXPECT_TRUE(Open().FailedTrials().empty()) << text;
  }
}

TEST_F(PlanCacheTest, WithoutAFileNothingIsOnRecord) {
  const PlanCache cache("", kGpu);
  bool has_run = false;
  EXPECT_EQ(cache.OnTrial("deeper sm90 128x64", "conv1", [&] { has_run = true; }), absl::OkStatus());
  EXPECT_TRUE(has_run);
  EXPECT_TRUE(cache.FailedTrials().empty());
}

}  // namespace
}  // namespace deeper
