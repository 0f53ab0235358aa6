// Randomly changed files of other programs. Reading them must fail, or give tensors that fit their shapes.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "data/io/file.h"
#include "tests/mutate.h"
#include "trainer/interchange/caffe_model.h"
#include "trainer/interchange/safetensors.h"
#include "trainer/interchange/torch_file.h"

namespace deeper {
namespace {

using Parser = absl::StatusOr<Weights>(std::span<const uint8_t>, const std::string&);

void Check(const Weights& weights) {
  int64_t end = 0;
  for (const TensorEntry& tensor : weights.tensors) {
    int64_t elements = 1;
    for (const int64_t side : tensor.shape) elements *= side;
    EXPECT_EQ(elements, tensor.count);
    EXPECT_EQ(tensor.first, end);
    end = tensor.end();
  }
  EXPECT_EQ(end, std::ssize(weights.values));
}

// Changes the files of a folder of the fuzz targets' corpus.
void MutateAll(const char* folder, Parser* parse) {
  std::vector<std::vector<uint8_t>> seeds;
  for (const auto& file : std::filesystem::directory_iterator(std::string(DEEPER_FUZZ_CORPUS) + "/" + folder))
    seeds.push_back(*ReadFile(file.path()));
  std::ranges::sort(seeds);  // file systems list a folder in different orders
  ASSERT_FALSE(seeds.empty());
  int64_t refused = 0, read = 0;
  for (int64_t i = 0; i < Mutations() && !::testing::Test::HasFailure(); ++i) {
    SCOPED_TRACE(i);
    Random random(i);
    const std::vector<uint8_t> bytes = Mutate(seeds[random.Below(seeds.size())], &random);
    const absl::StatusOr<Weights> weights = parse(bytes, "input");
    ++(weights.ok() ? read : refused);
    if (weights.ok()) Check(*weights);
  }
  EXPECT_GT(refused, 0);
  EXPECT_GT(read, 0);  // changed values, unless a checksum covers them
  std::printf("%s: %ld refused, %ld read\n", folder, refused, read);
}

TEST(MutatedWeights, CaffeModels) {
  MutateAll("caffe", ParseCaffeModel);
}

TEST(MutatedWeights, Safetensors) {
  MutateAll("safetensors", ParseSafetensors);
}

TEST(MutatedWeights, TorchFiles) {
  MutateAll("torch", ParseTorchFile);
}

}  // namespace
}  // namespace deeper
