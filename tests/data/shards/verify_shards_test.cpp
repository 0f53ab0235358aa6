#include "data/shards/verify_shards.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "data/io/hdf5_file.h"
#include "tests/data/small_dataset.h"

namespace deeper {
namespace {

using ::testing::HasSubstr;

class VerifyTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(Pack(SmallIdx(dir_)).ok()); }
  VerifyReport Verify() {
    const absl::StatusOr<VerifyReport> report = VerifyShards(dir_ / "out", 2);
    EXPECT_TRUE(report.ok()) << report.status();
    return *report;
  }
  uint64_t DataOffset(const std::string& path) {
    return Hdf5File::Open(path)->Locate("data", Hdf5Type::kU8)->offset;
  }

  ScratchDir dir_;
};

TEST_F(VerifyTest, SoundDataHasNoProblems) {
  PackOptions val = SmallIdx(dir_);
  WriteIdx(dir_ / "idx", "t10k", 5);
  val.split = "val";
  ASSERT_TRUE(Pack(val).ok());
  const VerifyReport report = Verify();
  EXPECT_TRUE(report.problems.empty()) << report.problems[0];
  EXPECT_EQ(report.shards, 4);
  EXPECT_EQ(report.samples, 29);
  EXPECT_GT(report.bytes, 4 * 64u * 8u);
}

TEST_F(VerifyTest, ListsEveryProblemOfEveryShard) {
  const std::string first = dir_ / "out/train-00000-of-00003.h5", last = dir_ / "out/train-00002-of-00003.h5";
  FlipBit(first, DataOffset(first) + 2 * 64);
  FlipBit(first, DataOffset(first) + 7 * 64 + 62);
  std::filesystem::remove(last);
  const VerifyReport report = Verify();
  ASSERT_EQ(report.problems.size(), 4u);
  EXPECT_THAT(report.problems[0], HasSubstr(last + ": No such file"));
  EXPECT_THAT(report.problems[1], HasSubstr(first + ", sample 2 (train-images-idx3-ubyte[2])"));
  EXPECT_THAT(report.problems[2], HasSubstr(first + ", sample 7 ("));
  EXPECT_THAT(report.problems[3], HasSubstr("the manifest says"));
}

// No reader uses the bytes between the arrays: only the checksum of the whole file covers them.
TEST_F(VerifyTest, FindsFlipsInPadding) {
  const std::string path = dir_ / "out/train-00001-of-00003.h5";
  FlipBit(path, DataOffset(path) + 63);
  const VerifyReport report = Verify();
  ASSERT_EQ(report.problems.size(), 1u);
  EXPECT_THAT(report.problems[0], HasSubstr("train-00001-of-00003.h5 has XXH3-128"));
}

TEST_F(VerifyTest, WithoutAManifestThereIsNothingToCheckAgainst) {
  std::filesystem::remove(dir_ / "out/manifest.json");
  EXPECT_EQ(VerifyShards(dir_ / "out").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace deeper
