// Tests the kernels that a tensor core convolution can choose from, what it loads, and what it rejects.
#include "kernels/cuda/tensor_core/conv_tensor_core.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/plans/cuda_problem.h"
#include "tests/kernels/cuda/tensor_core/conv_problem.h"

namespace deeper::conv {
namespace {

using Pass = ConvolutionProblem::Pass;

std::vector<std::string> NamesOf(const AlgorithmChoice& choice) {
  std::vector<std::string> names;
  for (size_t i = 0; i < choice.size(); ++i) names.push_back(*(*choice.Build(i))->Serialize());
  return names;
}

// Of three tiles of each kind at most.
TEST(TensorCoreChoiceTest, TilesWithTheLeastWorkFirst) {
  const auto names = [](int compute_capability, int64_t filters) {
    const auto choice =
        tensor_core::Choose(compute_capability, Problem(Pass::kForward, 1, 8, 8, 16, filters, 3));
    EXPECT_TRUE(choice.ok()) << choice.status();
    return NamesOf(**choice);
  };
  using ::testing::ElementsAre;
  EXPECT_THAT(names(90, 192),
              ElementsAre("deeper sm90 128x192", "deeper sm90 rows 128x192", "deeper sm90 rows 128x64",
                          "deeper sm90 rows 128x208", "deeper sm90 128x128", "deeper sm90 128x64",
                          "deeper sm80 128x128", "deeper sm80 128x64"));
  EXPECT_THAT(names(80, 32), ElementsAre("deeper sm80 128x64", "deeper sm80 128x128"));
  EXPECT_THAT(names(120, 32), ElementsAre("deeper sm80 128x64", "deeper sm80 128x128"));
}

// The masked gradients of GoogLeNet, most of which have a tile of just their columns.
TEST(TensorCoreChoiceTest, TilesOfAllColumns) {
  const auto first = [](int64_t size, int64_t c, int64_t k, int64_t kernel) {
    ConvolutionProblem problem = Problem(Pass::kBackwardData, 256, size, size, c, k, kernel);
    problem.mask_dx = true;
    const auto choice = tensor_core::Choose(90, problem);
    EXPECT_TRUE(choice.ok()) << choice.status();
    return NamesOf(**choice)[0];
  };
  EXPECT_EQ(first(28, 96, 128, 3), "deeper sm90 rows 128x96");
  EXPECT_EQ(first(14, 112, 224, 3), "deeper sm90 rows 128x112");
  EXPECT_EQ(first(14, 144, 288, 3), "deeper sm90 rows 128x144");
  EXPECT_EQ(first(7, 192, 384, 3), "deeper sm90 128x192");  // 7 of 8 places are pixels
  EXPECT_EQ(first(28, 16, 32, 5), "deeper sm90 rows 128x16");
  EXPECT_EQ(first(14, 24, 64, 5), "deeper sm90 rows 128x24");
  EXPECT_EQ(first(7, 48, 128, 5), "deeper sm90 rows 128x48");
}

TEST(TensorCoreChoiceTest, PooledInputsHaveKernelsOfTheirOwn) {
  const auto names = [](Pass pass, int64_t filters) {
    ConvolutionProblem problem = Problem(pass, 3, 14, 14, 480, filters, 1);
    problem.pool_x = true;
    const auto choice = tensor_core::Choose(90, problem);
    EXPECT_TRUE(choice.ok()) << choice.status();
    std::vector<std::string> found;
    for (size_t i = 0; i < (*choice)->size(); ++i) {
      found.push_back(*(*(*choice)->Build(i))->Serialize());
      EXPECT_TRUE((*choice)->Load(found.back()).ok());
    }
    return found;
  };
  using ::testing::ElementsAre;
  EXPECT_THAT(names(Pass::kForward, 64),
              ElementsAre("deeper sm80 pooled 128x64", "deeper sm80 pooled 128x128"));
  EXPECT_THAT(names(Pass::kForward, 128),
              ElementsAre("deeper sm80 pooled 128x128", "deeper sm80 pooled 128x64"));
  EXPECT_THAT(names(Pass::kBackwardWeights, 64),
              ElementsAre("deeper sm80 pooled gradient 64x64", "deeper sm80 pooled gradient 128x64"));
  EXPECT_THAT(names(Pass::kBackwardWeights, 128),
              ElementsAre("deeper sm80 pooled gradient 128x64", "deeper sm80 pooled gradient 64x64"));
}

TEST(TensorCoreChoiceTest, GradientsOfWeightsHaveTilesOfAllChannels) {
  const auto names = [](int64_t size, int64_t c, int64_t k) {
    ConvolutionProblem problem = Problem(Pass::kBackwardWeights, 256, size, size, c, k, 3);
    problem.wide_dw = true;
    const auto choice = tensor_core::Choose(90, problem);
    EXPECT_TRUE(choice.ok()) << choice.status();
    for (const std::string& name : NamesOf(**choice)) EXPECT_TRUE((*choice)->Load(name).ok()) << name;
    EXPECT_EQ((*choice)->size(), 3u);
    return NamesOf(**choice)[0];
  };
  EXPECT_EQ(names(56, 64, 192), "deeper sm90 gradient 64x64");
  EXPECT_EQ(names(28, 96, 128), "deeper sm90 gradient 64x96");
  EXPECT_EQ(names(28, 128, 192), "deeper sm90 gradient 64x128");
  EXPECT_EQ(names(14, 112, 224), "deeper sm90 gradient 64x112");
  EXPECT_EQ(names(14, 144, 288), "deeper sm90 gradient 64x72");
  EXPECT_EQ(names(14, 160, 320), "deeper sm90 gradient 64x80");
}

TEST(TensorCoreChoiceTest, WorkOfAGradientOfWeights) {
  ConvolutionProblem problem = Problem(Pass::kBackwardWeights, 256, 28, 28, 96, 128, 3);
  problem.x_pitch = 288;
  problem.wide_dw = true;
  const auto algorithm = *(*tensor_core::Choose(90, problem))->Load("deeper sm90 gradient 64x96");
  EXPECT_TRUE(algorithm->needs_check());
  // 256 * 28 * 29 places are 1624 steps, of which each of 22 splits has 74. 6 tiles: 132 blocks.
  EXPECT_EQ(algorithm->workspace_bytes(), 22u * 128 * 9 * 96 * sizeof(float));
  const KernelWork work = algorithm->ExpectedWork();
  EXPECT_EQ(work.macs, int64_t{132} * 74 * 128 * 64 * 3 * 96);
  EXPECT_EQ(work.l2_bytes, int64_t{132} * 74 * (128 * 64 + 130 * 96) * 2);
  EXPECT_EQ(work.kernels, 2);
  EXPECT_EQ(work.partial_bytes, static_cast<int64_t>(algorithm->workspace_bytes()));
  EXPECT_GT(work.warps, 0) << "not in the table of costs";
}

ConvolutionProblem StemProblem() {
  ConvolutionProblem problem = Problem(Pass::kForward, 3, 225, 33, 8, 64, 7);
  problem.stride = 2;
  problem.bias = problem.relu = problem.pool_y = true;
  return problem;
}

TEST(TensorCoreChoiceTest, PooledOutputsHaveAKernelOfTheirOwn) {
  for (const int compute_capability : {80, 86, 90, 120}) {
    const auto choice = tensor_core::Choose(compute_capability, StemProblem());
    ASSERT_TRUE(choice.ok()) << choice.status();
    EXPECT_THAT(NamesOf(**choice), ::testing::ElementsAre("deeper sm80 stem 112x64"));
    EXPECT_TRUE((*choice)->Load("deeper sm80 stem 112x64").ok());
    const auto algorithm = (*choice)->Build(0);
    EXPECT_TRUE((*algorithm)->needs_check());
    EXPECT_EQ((*algorithm)->workspace_bytes(), 0u);
    // 57 rows of windows are five strips of 12 rows, and 25 rows of the convolution each.
    EXPECT_EQ((*algorithm)->ExpectedWork().macs, int64_t{3} * 5 * 25 * 112 * 64 * 224);
  }
}

TEST(TensorCoreChoiceTest, GradientsOfPooledOutputsHaveAKernelOfTheirOwn) {
  ConvolutionProblem problem = StemProblem();
  problem.pass = Pass::kBackwardWeights;
  problem.bias = problem.relu = false;
  const auto choice = tensor_core::Choose(80, problem);
  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_THAT(NamesOf(**choice), ::testing::ElementsAre("deeper sm80 stem gradient 64x32"));
  const auto algorithm = (*choice)->Build(0);
  // 3 images of 57 bands are 171 blocks.
  EXPECT_EQ((*algorithm)->workspace_bytes(), 171u * (64 * 49 * 4 + 64) * sizeof(float));
  EXPECT_EQ((*algorithm)->ExpectedWork().macs, int64_t{171} * 224 * 64 * 224);
}

TEST(TensorCoreChoiceTest, PooledOutputsOfOtherLayersAreNotSupported) {
  const auto refuses = [](const auto& change) {
    ConvolutionProblem problem = StemProblem();
    change(problem);
    const absl::Status status = tensor_core::Choose(90, problem).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << ToString(problem);
  };
  refuses([](ConvolutionProblem& p) { p.dtype = DType::kF32; });
  refuses([](ConvolutionProblem& p) { p.k = 96; });
  refuses([](ConvolutionProblem& p) { p.c = 16; });
  refuses([](ConvolutionProblem& p) { p.kernel = 5; });
  refuses([](ConvolutionProblem& p) { p.stride = 1; });
  refuses([](ConvolutionProblem& p) { p.pad = 2; });
  refuses([](ConvolutionProblem& p) { p.x_pitch = 16; });
  refuses([](ConvolutionProblem& p) { p.y_pitch = 128; });
  refuses([](ConvolutionProblem& p) { p.bias = false; });
  refuses([](ConvolutionProblem& p) { p.wide_bias = true; });
  refuses([](ConvolutionProblem& p) { p.relu = false; });
  refuses([](ConvolutionProblem& p) { p.pass = Pass::kBackwardData; });
  refuses([](ConvolutionProblem& p) { p.n = int64_t{1} << 20; });
}

TEST(TensorCoreChoiceTest, AKernelIsLoadedFromItsText) {
  ConvolutionProblem problem = Problem(Pass::kBackwardData, 3, 28, 28, 96, 128, 3);
  problem.mask_dx = true;
  const auto choice = tensor_core::Choose(90, problem);
  ASSERT_TRUE(choice.ok()) << choice.status();
  const auto loaded = (*choice)->Load("deeper sm90 128x64");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(*(*loaded)->Serialize(), "deeper sm90 128x64");
  EXPECT_TRUE((*loaded)->needs_check());
  EXPECT_EQ((*loaded)->workspace_bytes(), 19u * 96 * sizeof(float));  // 2352 pixels are 19 tiles
  for (const char* bad : {"", "{}", "deeper sm90 128x80", "deeper sm90 rows 128x32", "deeper sm70 128x64"}) {
    EXPECT_EQ((*choice)->Load(bad).status().code(), absl::StatusCode::kNotFound) << bad;
  }
}

TEST(TensorCoreChoiceTest, SaysWhatItDoesNotDo) {
  const ConvolutionProblem good = Problem(Pass::kForward, 2, 8, 8, 16, 32, 3);
  ASSERT_TRUE(tensor_core::Choose(80, good).ok());
  const auto refuses = [](int compute_capability, const ConvolutionProblem& problem, const char* reason) {
    const absl::Status status = tensor_core::Choose(compute_capability, problem).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << ToString(problem);
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(ToString(problem)));
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(reason));
  };
  refuses(75, good, "compute capability 8.0");
  ConvolutionProblem problem = good;
  problem.dtype = DType::kF32;
  refuses(90, problem, "bf16");
  problem = good;
  problem.pass = Pass::kBackwardWeights;
  refuses(90, problem, "gradients of weights for pooled inputs, or for 3x3 in fp32, only");
  problem.wide_dw = true;
  EXPECT_TRUE(tensor_core::Choose(90, problem).ok());
  refuses(80, problem, "none for this GPU");
  refuses(120, problem, "none for this GPU");
  problem.kernel = 5;
  problem.pad = 2;
  refuses(90, problem, "for 3x3 in fp32, only");
  problem = good;
  problem.pass = Pass::kBackwardWeights;
  problem.pool_x = true;
  refuses(90, problem, "pooled inputs for 1x1 only");
  problem.kernel = 1;
  problem.pad = 0;
  EXPECT_TRUE(tensor_core::Choose(90, problem).ok());
  problem.pass = Pass::kBackwardData;
  refuses(90, problem, "pooled inputs for 1x1 only");
  problem.pass = Pass::kForward;
  problem.dtype = DType::kF32;
  refuses(90, problem, "bf16");
  problem = good;
  problem.stride = 2;
  refuses(90, problem, "stride");
  for (const auto& [kernel, pad] : {std::pair(3, 0), std::pair(4, 2), std::pair(257, 128)}) {
    problem = good;
    problem.kernel = kernel;
    problem.pad = pad;
    refuses(90, problem, "odd filters");
  }
  for (int64_t ConvolutionProblem::*field : {&ConvolutionProblem::c, &ConvolutionProblem::k,
                                             &ConvolutionProblem::x_pitch, &ConvolutionProblem::y_pitch}) {
    problem = good;
    problem.*field = 36;
    refuses(90, problem, "multiples of 8");
  }
  problem = good;
  problem.n = int64_t{1} << 26;
  refuses(90, problem, "pixels");
  problem = good;
  std::tie(problem.n, problem.h, problem.w) = std::tuple(1 << 20, 1 << 10, 1);  // and as many zeros
  refuses(90, problem, "pixels");
}

TEST(TensorCoreChoiceTest, WantsAlignedOperands) {
  const auto choice = tensor_core::Choose(80, Problem(Pass::kForward, 2, 8, 8, 16, 32, 3));
  ASSERT_TRUE(choice.ok());
  const auto algorithm = (*choice)->Build(0);
  alignas(16) char memory[32] = {};
  PlanOperands operands = {.a = memory + 2, .b = memory, .d = memory};
  EXPECT_EQ((*algorithm)->Enqueue(operands, {}).code(), absl::StatusCode::kInvalidArgument);
}

TEST(TensorCoreChoiceTest, ExcludedKernelsAreNotProposed) {
  const ConvolutionProblem problem = Problem(Pass::kForward, 2, 8, 8, 16, 32, 3);
  std::set<std::string> excluded;
  size_t left = (*tensor_core::Choose(90, problem))->size();
  for (; left > 0; --left) {
    const auto choice = tensor_core::Choose(90, problem, excluded);
    ASSERT_TRUE(choice.ok()) << choice.status();
    ASSERT_EQ((*choice)->size(), left);
    const std::string name = *(*(*choice)->Build(0))->Serialize();
    EXPECT_TRUE((*choice)->Load(name).ok());
    EXPECT_TRUE(excluded.insert(name).second) << name;
    const auto without = tensor_core::Choose(90, problem, excluded);
    if (without.ok()) {
      EXPECT_FALSE((*without)->Load(name).ok()) << "from the plan cache: " << name;
    }
  }
  EXPECT_EQ(tensor_core::Choose(90, problem, excluded).status().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace deeper::conv
