#include "trainer/interchange/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "data/io/file.h"
#include "data/io/protobuf.h"
#include "tests/data/scratch.h"

namespace deeper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<Weights> Parse(const std::string& header, const std::string& content) {
  const std::string text = FixedBytes(uint64_t{header.size()}) + header + content;
  return ParseSafetensors({reinterpret_cast<const uint8_t*>(text.data()), text.size()}, "file");
}

std::string Problem(const std::string& header, const std::string& content) {
  return std::string(Parse(header, content).status().message());
}

TEST(Safetensors, WhatIsWrittenIsRead) {
  const Weights weights = {.path = "x",
                           .config = {{"model", "nin"}, {"num_classes", 2}},
                           .tensors = {{"b", {2, 1}, kWeightRole, 0, 2}, {"a", {1}, kStatisticRole, 2, 1}},
                           .values = {1, 2, 3}};
  const ScratchDir directory;
  const std::string path = directory / "written.safetensors";
  ASSERT_TRUE(WriteSafetensors(weights, path).ok());
  const std::vector<uint8_t> bytes = *ReadFile(path);
  EXPECT_EQ(bytes[0] % 8, 0);  // the values are aligned
  const absl::StatusOr<Weights> read = ParseSafetensors(bytes, path);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->config, weights.config);
  EXPECT_THAT(read->values, ElementsAre(3, 1, 2));
  EXPECT_EQ(read->tensors[1].ToString(), "b [2, 1]");
}

TEST(Safetensors, NumbersOfOtherTypesAreConverted) {
  const absl::StatusOr<Weights> read =
      ParseSafetensors(*ReadFile(std::string(DEEPER_FUZZ_CORPUS) + "/safetensors/plain"), "plain");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_THAT(read->values, ElementsAre(0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 1, 0, 1));  // no integers
  EXPECT_EQ(read->config["num_classes"], 3);
}

TEST(Safetensors, HalfPrecision) {
  const std::string entry = R"({"a":{"dtype":"F16","shape":[4],"data_offsets":[0,8]}})";
  const std::vector<uint16_t> bits = {0x3c00, 0x8001, 0x7bff, 0xfc00};
  const absl::StatusOr<Weights> read =
      Parse(entry, {reinterpret_cast<const char*>(bits.data()), bits.size() * 2});
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_THAT(read->values, ElementsAre(1.0f, -0x1p-24f, 65504.0f, -INFINITY));
}

// The rules of the reference library.
TEST(Safetensors, InvalidFilesAreRefused) {
  const std::string four(4, '\0'), eight(8, '\0');
  EXPECT_TRUE(Parse(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}   )", four).ok());
  EXPECT_TRUE(Parse(R"({"a":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]}})", "").ok());
  EXPECT_TRUE(Parse("{}", "").ok());

  EXPECT_THAT(Problem(R"( {})", ""), HasSubstr("header is not a JSON object"));
  EXPECT_THAT(Problem("{\"\xff\":1}", ""), HasSubstr("header is not a JSON object"));
  EXPECT_THAT(Problem(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                      R"("a":{"dtype":"F32","shape":[],"data_offsets":[4,8]}})",
                      eight),
              HasSubstr("unique names"));
  EXPECT_THAT(Problem(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", four), HasSubstr("fit"));
  EXPECT_THAT(Problem(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", four),
              HasSubstr("entry"));
  EXPECT_THAT(Problem(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", four),
              HasSubstr("too large"));
  EXPECT_THAT(Problem(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", eight),
              HasSubstr("behind"));
  EXPECT_THAT(Problem(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", eight),
              HasSubstr("take 4 of 8 bytes"));
  EXPECT_THAT(Problem(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", ""), HasSubstr("behind"));
  EXPECT_THAT(Problem(R"({"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}})", four),
              HasSubstr("type F8_E4M3"));
  EXPECT_THAT(Problem(R"({"__metadata__":{"a":1}})", ""), HasSubstr("metadata are not strings"));
  EXPECT_FALSE(ParseSafetensors({}, "empty").ok());
}

}  // namespace
}  // namespace deeper
