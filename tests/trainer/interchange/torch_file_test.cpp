#include "trainer/interchange/torch_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "data/io/file.h"

namespace deeper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Files that PyTorch 1.13 saved, each with and without a zip archive.
std::vector<uint8_t> Saved(const std::string& name) {
  return *ReadFile(std::string(DEEPER_FUZZ_CORPUS) + "/torch/" + name + ".pt");
}

std::vector<std::string> Names(const Weights& weights) {
  std::vector<std::string> names;
  for (const TensorEntry& tensor : weights.tensors) names.push_back(tensor.ToString());
  return names;
}

TEST(TorchFile, BothFormsHaveTheSameTensors) {
  const absl::StatusOr<Weights> zip = ParseTorchFile(Saved("plain"), "plain");
  const absl::StatusOr<Weights> legacy = ParseTorchFile(Saved("plain-legacy"), "plain");
  ASSERT_TRUE(zip.ok()) << zip.status();
  ASSERT_TRUE(legacy.ok()) << legacy.status();
  // Without the integer "n".
  EXPECT_THAT(Names(*zip), ElementsAre("a.weight [2, 3]", "a.bias [3]", "half [4]", "bf [2]", "double [2]",
                                       "empty [0, 2]"));
  EXPECT_EQ(zip->tensors, legacy->tensors);
  EXPECT_EQ(zip->values, legacy->values);
}

// "containers" also has a defaultdict and a deque.
TEST(TorchFile, DictionariesWithinDictionaries) {
  for (const char* name : {"nested", "nested-legacy", "containers", "containers-legacy"}) {
    const absl::StatusOr<Weights> weights = ParseTorchFile(Saved(name), name);
    ASSERT_TRUE(weights.ok()) << weights.status();
    EXPECT_THAT(Names(*weights), ElementsAre("a.weight [2, 3]", "a.bias [3]"));
  }
}

TEST(TorchFile, PartsOfAStorage) {
  for (const char* name : {"view", "view-legacy", "protocol4"}) {
    const absl::StatusOr<Weights> weights = ParseTorchFile(Saved(name), name);
    ASSERT_TRUE(weights.ok()) << weights.status();
    EXPECT_EQ(weights->tensors.size(), 1u);
  }
}

TEST(TorchFile, OtherObjectsAreRefused) {
  for (const char* form : {"", "-legacy"}) {
    const auto message = [form](const std::string& name) {
      return std::string(ParseTorchFile(Saved(name + form), name).status().message());
    };
    EXPECT_THAT(message("module"), HasSubstr("save model.state_dict() instead of "));
    EXPECT_THAT(message("strided"), HasSubstr("t is not a dense, contiguous tensor"));
    EXPECT_THAT(message("system"), HasSubstr("b is not a dense, contiguous tensor"));
  }
  EXPECT_THAT(std::string(ParseTorchFile(Saved("module"), "module").status().message()),
              HasSubstr("torch.nn.modules.linear.Linear"));
}

TEST(TorchFile, DamageIsReported) {
  for (const char* name : {"plain", "plain-legacy"}) {
    std::vector<uint8_t> bytes = Saved(name);
    bytes.pop_back();
    EXPECT_EQ(ParseTorchFile(bytes, name).status().code(), absl::StatusCode::kDataLoss);
  }
  // A bit of the numbers, which the archive stores without compression.
  std::vector<uint8_t> bytes = Saved("view");
  const absl::StatusOr<Weights> weights = ParseTorchFile(bytes, "view");
  ASSERT_TRUE(weights.ok()) << weights.status();
  const auto* number = reinterpret_cast<const uint8_t*>(weights->values.data());
  const auto stored = std::search(bytes.begin(), bytes.end(), number, number + sizeof(float));
  ASSERT_NE(stored, bytes.end());
  *stored ^= 1;
  EXPECT_THAT(std::string(ParseTorchFile(bytes, "view").status().message()), HasSubstr("the checksum of"));
}

}  // namespace
}  // namespace deeper
