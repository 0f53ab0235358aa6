#include "trainer/engine/op_chain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tests/kernels/test_device.h"

namespace deeper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TestDevice;

Model SmallGoogLeNet() {
  ModelOptions options;
  options.num_classes = 10;
  options.stem = Stem::kSmall;
  return *MakeModel("googlenet", options);
}

std::vector<std::string> NamesOf(const std::vector<NodeRange>& ranges) {
  std::vector<std::string> names;
  for (const NodeRange& range : ranges) names.push_back(range.name);
  return names;
}

TEST(OpChain, Ranges) {
  const Model model = SmallGoogLeNet();
  EXPECT_THAT(NamesOf(BenchmarkedRanges(model)),
              ElementsAre("stem", "inception3a", "inception3b", "inception4a", "inception4b", "inception4c",
                          "inception4d", "inception4e", "inception5a", "inception5b", "head"));
  const NodeRange stem = *FindRange(model, "stem"), head = *FindRange(model, "head");
  EXPECT_EQ(stem.first, 0);
  EXPECT_EQ(model.nodes[static_cast<size_t>(stem.last) + 1].name, "inception3a");
  EXPECT_EQ(model.nodes[static_cast<size_t>(head.first)].name, "avgpool");
  EXPECT_EQ(head.last, model.heads[0].logits);
  EXPECT_EQ(model.nodes[static_cast<size_t>(FindRange(model, "aux1.fc1")->first)].name, "aux1.fc1");
  const absl::Status unknown = FindRange(model, "inception6a").status();
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("--op=inception6a"));
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("inception5b"));
  const Model nin = *MakeModel("nin-cifar", {});
  EXPECT_EQ(BenchmarkedRanges(nin).size(), nin.nodes.size());
}

// The last feature map of the small images of nin-cifar has one pixel, and the layout of feature maps
// nevertheless.
TEST(OpChain, FeatureMapsOfOnePixel) {
  const Model model = *MakeModel("nin-cifar", {.num_classes = 10, .image_size = 10});
  for (const NodeRange& range : BenchmarkedRanges(model)) {
    const auto chain = OpChain::Make(model, range, {.rows = 2, .precision = DType::kF32}, TestDevice());
    EXPECT_TRUE(chain.ok()) << range.name << ": " << chain.status();
  }
}

std::vector<std::vector<float>> ResultsOf(const Model& model, const NodeRange& range, bool fusion) {
  auto chain =
      *OpChain::Make(model, range, {.rows = 2, .precision = DType::kF32, .fusion = fusion}, TestDevice());
  chain->Fill(7);
  chain->Forward();
  chain->Backward();
  return chain->Results();
}

// For every range: outputs and gradients of a chain without fused kernels, and with those of the device.
TEST(DeviceTrainingOpChain, FusedAndNotAgree) {
  const Model model = SmallGoogLeNet();
  for (const NodeRange& range : BenchmarkedRanges(model)) {
    const auto expected = ResultsOf(model, range, false), actual = ResultsOf(model, range, true);
    ASSERT_EQ(actual.size(), expected.size()) << range.name;
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_EQ(actual[i].size(), expected[i].size()) << range.name;
      EXPECT_TRUE(std::ranges::any_of(expected[i], [](float x) { return x != 0; })) << range.name << i;
      EXPECT_LE(Difference({actual[i]}, {expected[i]}), 1e-4) << range.name << ", result " << i;
    }
  }
}

// As in `bench op`: no buffer that a later run reads is overwritten.
TEST(DeviceTrainingOpChain, RepeatsForwardAndBackwardInAnyOrder) {
  const Model model = SmallGoogLeNet();
  for (const char* name : {"stem", "inception4a", "head"}) {
    auto chain = *OpChain::Make(model, *FindRange(model, name), {.rows = 2}, TestDevice());
    chain->Fill(7);
    chain->Forward();
    chain->Backward();
    const auto first = chain->Results();
    chain->Forward();
    chain->Fill(7);
    chain->Backward();
    EXPECT_LE(Difference(chain->Results(), first), 1e-6) << name;
  }
}

TEST(OpChain, DifferenceIsTheLargestOverTensors) {
  const std::vector<std::vector<float>> b = {{3, 4}, {1, 0, 0}};
  EXPECT_EQ(Difference(b, b), 0);
  EXPECT_NEAR(Difference({{3, 4}, {1, 0, 0.5f}}, b), 0.5, 1e-9);
  EXPECT_NEAR(Difference({{3, 5}, {1, 0, 0}}, b), 0.2, 1e-9);
  EXPECT_TRUE(std::isnan(Difference({{3, 4}, {NAN, 0, 0}}, b)));
}

}  // namespace
}  // namespace deeper
