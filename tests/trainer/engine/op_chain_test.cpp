#include "trainer/engine/op_chain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
  options.small_stem = true;
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

std::vector<std::vector<float>> ResultsOf(const Model& model, const NodeRange& range, bool fusion) {
  auto chain =
      *OpChain::Make(model, range, {.rows = 2, .precision = DType::kF32, .fusion = fusion}, TestDevice());
  chain->Fill(7);
  chain->Forward();
  chain->Backward();
  return chain->Results();
}

// Of every range: outputs and gradients of a chain with fused kernels, where the device has them, and
// without.
TEST(DeviceTrainingOpChain, FusedAndNotAgree) {
  const Model model = SmallGoogLeNet();
  for (const NodeRange& range : BenchmarkedRanges(model)) {
    const auto expected = ResultsOf(model, range, false), actual = ResultsOf(model, range, true);
    ASSERT_EQ(actual.size(), expected.size()) << range.name;
    for (size_t i = 0; i < expected.size(); ++i) {
      double difference = 0, norm = 0;
      ASSERT_EQ(actual[i].size(), expected[i].size()) << range.name;
      for (size_t j = 0; j < expected[i].size(); ++j) {
        difference += std::pow(double{actual[i][j]} - expected[i][j], 2);
        norm += std::pow(double{expected[i][j]}, 2);
      }
      EXPECT_GT(norm, 0) << range.name << ", result " << i;
      EXPECT_LE(std::sqrt(difference), 1e-4 * std::sqrt(norm)) << range.name << ", result " << i;
    }
  }
}

}  // namespace
}  // namespace deeper
