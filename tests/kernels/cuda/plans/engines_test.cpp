// Checks that cuDNN has an engine for every convolution of GoogLeNet, on described GPUs.
//
// devices/*.json are reconstructed from data sheets. cuDNN did not write them on those GPUs.
//
// For the described GPU, cuDNN's heuristics must propose an engine of the required accuracy, and one of its
// configurations must be finalized into a plan of at most 1 GiB of workspace. The test does not check that
// the plan's code loads and runs, which needs a driver. Without a driver a single refusal proves nothing:
// engines that compile at run time need libcuda and are missing. The test therefore fails only for a problem
// without any engine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "kernels/cuda/plans/autotune.h"
#include "kernels/cuda/plans/cudnn.h"
#include "tests/data_directory.h"
#include "tests/kernels/googlenet_shapes.h"

namespace deeper {
namespace {

using Pass = ConvolutionProblem::Pass;

std::string ReadDevice(const std::string& name) {
  std::ifstream in(testing::DataDirectory(DEEPER_DEVICES_DIR, "tests/devices") / (name + ".json"));
  EXPECT_TRUE(in) << name;
  return std::string(std::istreambuf_iterator<char>(in), {});
}

std::vector<ConvolutionProblem> Problems(DType dtype) {
  std::vector<ConvolutionProblem> problems;
  for (const Pass pass : {Pass::kForward, Pass::kBackwardData, Pass::kBackwardWeights}) {
    ConvolutionProblem problem = {.pass = pass, .dtype = dtype, .n = 256};
    problem.bias = problem.relu = pass == Pass::kForward;
    for (const testing::ConvolutionShape& s : testing::kGoogLeNetShapes) {
      problem.h = problem.w = s.size;
      problem.c = s.c;
      problem.k = s.k;
      problem.kernel = s.kernel;
      problem.pad = s.kernel / 2;
      problems.push_back(problem);
    }
    // conv1. The 3 channels of images are padded to 16 bytes.
    problem.h = problem.w = 224;
    problem.c = static_cast<int64_t>(16 / SizeOf(dtype));
    problem.k = 64;
    problem.kernel = 7;
    problem.stride = 2;
    problem.pad = 3;
    problems.push_back(problem);
  }
  return problems;
}

class CudaEnginesTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto target = cudnn::MakeDevicelessTarget(ReadDevice(GetParam()));
    ASSERT_TRUE(target.ok()) << target.status();
    target_ = *std::move(target);
  }

  absl::StatusOr<std::unique_ptr<Algorithm>> First(const ConvolutionProblem& problem,
                                                   bool deterministic) const {
    const auto choice = cudnn::Choose(*target_, problem, deterministic);
    if (!choice.ok()) return choice.status();
    return ChooseFirst(**choice);
  }

  std::unique_ptr<cudnn::Target> target_;
};

INSTANTIATE_TEST_SUITE_P(, CudaEnginesTest, ::testing::Values("device-a100", "device-h200"),
                         [](const auto& device) {
                           return std::string(device.param).substr(std::string("device-").size());
                         });

TEST_P(CudaEnginesTest, EveryConvolutionOfGoogLeNet) {
  for (const DType dtype : {DType::kBf16, DType::kF32}) {
    for (const ConvolutionProblem& problem : Problems(dtype)) {
      for (const bool deterministic : {false, true}) {
        const auto algorithm = First(problem, deterministic);
        ASSERT_TRUE(algorithm.ok()) << algorithm.status();
        EXPECT_LE((*algorithm)->workspace_bytes(), size_t{1} << 30) << ToString(problem);
      }
    }
  }
}

// To build a plan is slow where its engine compiles at run time.
TEST_P(CudaEnginesTest, NoTwoProposalsAreTheSamePlan) {
  size_t built = 0;
  for (const ConvolutionProblem& problem : Problems(DType::kBf16)) {
    const auto choice = cudnn::Choose(*target_, problem, false);
    ASSERT_TRUE(choice.ok()) << choice.status();
    ASSERT_TRUE((*choice)->Ask().ok());
    std::set<std::string> plans;
    for (size_t i = 0; i < (*choice)->size(); ++i) {
      const auto algorithm = (*choice)->Build(i);
      if (!algorithm.ok()) continue;  // it compiles, which needs a driver
      EXPECT_TRUE(plans.insert(*(*algorithm)->Serialize()).second) << ToString(problem) << ": proposal " << i;
      ++built;
    }
  }
  EXPECT_GT(built, 0u);
}

TEST_P(CudaEnginesTest, ChannelsThatAreNoMultipleOfAnything) {
  for (const DType dtype : {DType::kBf16, DType::kF32}) {
    for (const Pass pass : {Pass::kForward, Pass::kBackwardData, Pass::kBackwardWeights}) {
      ConvolutionProblem problem = {.pass = pass, .dtype = dtype, .n = 2, .h = 9, .w = 7, .c = 5, .k = 3};
      problem.kernel = 3;
      problem.pad = 1;
      problem.bias = problem.relu = pass == Pass::kForward;
      const auto algorithm = First(problem, false);
      EXPECT_TRUE(algorithm.ok()) << algorithm.status();
    }
  }
}

TEST_P(CudaEnginesTest, APlanIsLoadedFromItsText) {
  for (const ConvolutionProblem& problem : {Problems(DType::kBf16).front(), Problems(DType::kF32).back()}) {
    const auto built = First(problem, false);
    ASSERT_TRUE(built.ok()) << built.status();
    const auto text = (*built)->Serialize();
    ASSERT_TRUE(text.ok()) << text.status();
    const auto choice = cudnn::Choose(*target_, problem, false);
    ASSERT_TRUE(choice.ok()) << choice.status();
    const auto loaded = (*choice)->Load(*text);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ((*loaded)->workspace_bytes(), (*built)->workspace_bytes());
    EXPECT_EQ(*(*loaded)->Serialize(), *text);
    for (const std::string& bad : {std::string(), std::string("{}"), text->substr(0, text->size() / 2)}) {
      EXPECT_FALSE((*choice)->Load(bad).ok()) << bad;
    }
  }
}

TEST_P(CudaEnginesTest, APlanOfAnotherGpuIsRefused) {
  const auto other = cudnn::MakeDevicelessTarget(
      ReadDevice(std::string(GetParam()) == "device-a100" ? "device-h200" : "device-a100"));
  ASSERT_TRUE(other.ok()) << other.status();
  const ConvolutionProblem problem = Problems(DType::kBf16).front();
  const auto text = (*First(problem, false))->Serialize();
  ASSERT_TRUE(text.ok()) << text.status();
  const auto choice = cudnn::Choose(**other, problem, false);
  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_FALSE((*choice)->Load(*text).ok());
}

TEST_P(CudaEnginesTest, WithoutAGpuNothingRuns) {
  const auto algorithm = First(Problems(DType::kBf16).front(), false);
  ASSERT_TRUE(algorithm.ok()) << algorithm.status();
  EXPECT_EQ((*algorithm)->Enqueue({}, {}).code(), absl::StatusCode::kFailedPrecondition);
}

TEST(CudnnTargetTest, WantsTheProperties) {
  for (const char* text : {"", "nonsense", "{}"}) {
    const auto target = cudnn::MakeDevicelessTarget(text);
    EXPECT_EQ(target.status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace deeper
