#include "trainer/checkpoint/checkpoint_manifest.h"

#include <gmock/gmock.h>

#include "tests/trainer/checkpoint/checkpoint_fixture.h"

namespace deeper {
namespace {

using ::testing::HasSubstr;

TEST(CheckpointManifest, HasTheDocumentedFields) {
  const TrainState state = ExampleState(7);
  const CheckpointManifest manifest{
      state,
      {{4096, {0x12, 0x34}}},
      {{"w", {2, 3}, kWeightRole, 0, 6}, {"w", {2, 3}, "momentum", 6, 6}, {"m", {2}, kStatisticRole, 12, 2}}};
  const nlohmann::json json = nlohmann::json::parse(RenderCheckpointManifest(manifest));
  EXPECT_EQ(json["format"], "deeper-checkpoint");
  EXPECT_EQ(json["format_version"], 1);
  EXPECT_EQ(json["step"], 7);
  EXPECT_EQ(json["world_size"], 1);
  EXPECT_EQ(json["data"], nlohmann::json::parse(R"({"dataset_uuid": "c0ffee", "seed": 18364758544493064720,
      "global_batch": 32, "order": "full", "epoch": 2, "batch": 17, "samples_trained": 12345})"));
  EXPECT_EQ(json["config"], state.config);
  EXPECT_EQ(json["shards"], nlohmann::json::parse(R"([{"file": "shard-00000-of-00001.h5", "bytes": 4096,
      "xxh3_128": "00000000000000120000000000000034"}])"));
  EXPECT_EQ(json["tensors"], nlohmann::json::parse(R"([
      {"name": "w", "role": "weight", "shape": [2, 3], "first": 0, "count": 6},
      {"name": "w", "role": "momentum", "shape": [2, 3], "first": 6, "count": 6},
      {"name": "m", "role": "statistic", "shape": [2], "first": 12, "count": 2}])"));
}

TEST(CheckpointManifest, AnotherVersionIsNamed) {
  CheckpointManifest manifest{{1, {}, nlohmann::json::object()}, {{}}, {{"w", {2}, kWeightRole, 0, 2}}};
  std::string text = RenderCheckpointManifest(manifest);
  EXPECT_TRUE(ParseCheckpointManifest(text, "m").ok());
  const std::string version = R"("format_version": 1)";
  text.replace(text.find(version), version.size(), R"("format_version": 2)");
  EXPECT_EQ(Message(ParseCheckpointManifest(text, "m").status()),
            "m has checkpoint format version 2; this build reads version 1");
}

TEST(CheckpointManifest, ATableThatDoesNotAddUpIsRefused) {
  CheckpointManifest manifest{{1, {}, nlohmann::json::object()}, {{}}, {{"w", {2}, kWeightRole, 0, 3}}};
  EXPECT_THAT(Message(ParseCheckpointManifest(RenderCheckpointManifest(manifest), "m").status()),
              HasSubstr("do not fit together"));
}

TEST(CheckpointManifest, ManyRanksWriteFewerLargerShards) {
  constexpr int64_t kGoogLeNet = 27'000'000, kMiB = (int64_t{1} << 20) / 4;  // elements
  EXPECT_EQ(ShardsOf(kMiB, 1), 1);
  EXPECT_EQ(ShardsOf(kMiB, 8), 8);
  EXPECT_EQ(ShardsOf(kMiB, 9), 8) << "few files, but a small state";
  EXPECT_EQ(ShardsOf(kGoogLeNet, 4096), 8);
  EXPECT_EQ(ShardsOf(1600 * kMiB, 4096), 100) << "of 16 MiB";
  EXPECT_EQ(ShardsOf(1600 * kMiB, 64), 64);
  for (const int ranks : {1, 3, 9, 64, 4096}) {
    const int64_t shards = ShardsOf(1600 * kMiB, ranks);
    int last = -1;
    for (int64_t shard = 0; shard < shards; ++shard) {
      const int writer = WriterOf(shard, shards, ranks);
      EXPECT_GT(writer, last) << "a rank writes one shard";
      last = writer;
    }
    EXPECT_LT(last, ranks);
  }
}

TEST(CheckpointManifest, ShardsCoverTheStateOnce) {
  for (const int64_t shards : {1, 3, 7}) {
    int64_t next = 0;
    for (int64_t shard = 0; shard < shards; ++shard) {
      const StateRange range = ShardRange(1000, shard, shards);
      EXPECT_EQ(range.begin, next);
      next = range.end;
    }
    EXPECT_EQ(next, 1000);
  }
}

}  // namespace
}  // namespace deeper
