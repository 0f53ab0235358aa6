#include "trainer/interchange/caffe_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "data/io/file.h"
#include "data/io/protobuf.h"

namespace deeper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<Weights> Parse(const std::string& text) {
  return ParseCaffeModel({reinterpret_cast<const uint8_t*>(text.data()), text.size()}, "file");
}

absl::StatusOr<Weights> Read(const std::string& name) {
  return ParseCaffeModel(*ReadFile(std::string(DEEPER_FUZZ_CORPUS) + "/caffe/" + name), name);
}

std::vector<std::string> Names(const Weights& weights) {
  std::vector<std::string> names;
  for (const TensorEntry& tensor : weights.tensors) names.push_back(tensor.ToString());
  return names;
}

TEST(CaffeModel, BothVersionsGetOurNamesAndShapes) {
  const absl::StatusOr<Weights> v2 = Read("v2"), v1 = Read("v1");
  ASSERT_TRUE(v2.ok()) << v2.status();
  ASSERT_TRUE(v1.ok()) << v1.status();
  EXPECT_THAT(Names(*v2), ElementsAre("conv1.conv.weight [1, 2, 1, 1]", "conv1.conv.bias [1]",
                                      "fc.weight [2, 1]", "fc.bias [2]"));
  EXPECT_THAT(Names(*v1),
              ElementsAre("inception3a.branch3.1.conv.weight [1, 2, 1, 1]",
                          "inception3a.branch3.1.conv.bias [1]", "fc.weight [2, 1]", "fc.bias [2]"));
  EXPECT_THAT(v1->values, ElementsAre(1, 2, 3, 1, 2, 3, 4));
  EXPECT_EQ(v1->config["model"], "googlenet-bvlc");
  EXPECT_EQ(v1->config["num_classes"], 2);
}

TEST(CaffeModel, NumbersMayBeUnpackedOrDoubles) {
  const absl::StatusOr<Weights> weights = Read("unpacked");
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_THAT(weights->values, ElementsAre(1, 2, 2.5));
  EXPECT_TRUE(weights->config.empty());
}

TEST(CaffeModel, OtherFilesAreRefused) {
  EXPECT_THAT(std::string(Parse("").status().message()), HasSubstr("it has no weights"));
  EXPECT_THAT(std::string(Parse(BytesField(2, BytesField(1, ""))).status().message()), HasSubstr("V0"));
  const std::string shape = BytesField(7, IntField(1, 3)), data = BytesField(5, FixedBytes(1.0f));
  const std::string layer = BytesField(1, "a") + BytesField(7, data + shape) + BytesField(7, data);
  EXPECT_THAT(std::string(Parse(BytesField(100, layer)).status().message()),
              HasSubstr("its shape is not that"));
  EXPECT_THAT(
      std::string(Parse(BytesField(100, BytesField(1, "a") + BytesField(7, data))).status().message()),
      HasSubstr("layer a has 1 blobs"));
  EXPECT_THAT(std::string(Parse(BytesField(100, layer).substr(0, 9)).status().message()),
              HasSubstr("truncated"));
}

}  // namespace
}  // namespace deeper
