// Compares our tensor core convolutions with cuDNN on a GPU.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/plans/cuda_problem.h"
#include "kernels/cuda/plans/cudnn.h"
#include "kernels/cuda/tensor_core/conv_check.h"
#include "kernels/cuda/tensor_core/conv_tensor_core.h"
#include "tests/kernels/googlenet_shapes.h"
#include "tests/kernels/test_device.h"

namespace deeper {
namespace {

using Pass = ConvolutionProblem::Pass;
using testing::DeviceArray;
using testing::TestDevice;

int ComputeCapability() {
  cudaDeviceProp properties = {};
  EXPECT_EQ(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
  return properties.major * 10 + properties.minor;
}

template <class T>
std::vector<T> Random(size_t bytes) {
  static std::minstd_rand generator;
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<T> numbers(bytes / sizeof(T));
  for (T& number : numbers) number = FromFloat<T>(uniform(generator));
  return numbers;
}

// Each of our kernels computes the same result as cuDNN, and the same bits twice.
void Check(const ConvolutionProblem& problem) {
  SCOPED_TRACE(ToString(problem));
  Device& device = TestDevice();
  const auto target = cudnn::MakeGpuTarget();
  ASSERT_TRUE(target.ok()) << target.status();
  const auto library =
      cudnn::Choose(**target, ConvolutionCheck::LibraryProblem(problem), /*deterministic=*/false);
  ASSERT_TRUE(library.ok()) << library.status();
  const auto own = tensor_core::Choose(ComputeCapability(), problem);
  ASSERT_TRUE(own.ok()) << own.status();

  const OperandSizes sizes = SizesOf(problem);
  const DeviceArray<bf16> a(Random<bf16>(sizes.a), device), b(Random<bf16>(sizes.b), device),
      mask(Random<bf16>(sizes.mask), device), d(sizes.d / sizeof(bf16), device);
  const DeviceArray<float> sums(sizes.sums / sizeof(float), device);
  const DeviceArray<uint8_t> argmax(sizes.argmax, device);
  const DeviceArray<bf16> bias(Random<bf16>(problem.wide_bias ? 0 : sizes.bias), device);
  const DeviceArray<float> wide_bias(Random<float>(problem.wide_bias ? sizes.bias : 0), device);
  const PlanOperands operands = {
      .a = a.data(),
      .b = b.data(),
      .d = d.data(),
      .bias = problem.wide_bias ? static_cast<const void*>(wide_bias.data()) : bias.data(),
      .mask = mask.data(),
      .sums = sums.data(),
      .argmax = argmax.data()};
  const PlanCache no_file("", "");
  ConvolutionCheck check(problem, library->get(), device, std::chrono::seconds(20), no_file);
  for (size_t i = 0; i < (*own)->size(); ++i) {
    const auto algorithm = (*own)->Build(i);
    SCOPED_TRACE(*(*algorithm)->Serialize());
    EXPECT_EQ(check(**algorithm, operands), absl::OkStatus());
    const std::vector<bf16> first = d.Read();
    const std::vector<float> first_sums = sums.Read();
    EXPECT_EQ(check(**algorithm, operands), absl::OkStatus());
    EXPECT_EQ(std::memcmp(first.data(), d.Read().data(), sizes.d), 0);
    EXPECT_EQ(first_sums, sums.Read());
  }
}

ConvolutionProblem Problem(Pass pass, int64_t n, const testing::ConvolutionShape& s) {
  ConvolutionProblem p = {
      .pass = pass, .n = n, .h = s.size, .w = s.size, .c = s.c, .k = s.k, .kernel = s.kernel};
  p.pad = s.kernel / 2;
  p.bias = p.relu = pass == Pass::kForward;
  return p;
}

TEST(ConvolutionOnGpuTest, ForwardOfGoogLeNet) {
  for (const testing::ConvolutionShape& s : testing::kGoogLeNetShapes) Check(Problem(Pass::kForward, 3, s));
}

TEST(ConvolutionOnGpuTest, MaskedBackwardDataOfGoogLeNet) {
  for (const testing::ConvolutionShape& s : testing::kGoogLeNetShapes) {
    ConvolutionProblem problem = Problem(Pass::kBackwardData, 3, s);
    problem.mask_dx = true;
    problem.x_pitch = s.c + 64;
    problem.y_pitch = s.k + 32;
    problem.mask_pitch = s.c + 16;
    Check(problem);
  }
}

TEST(ConvolutionOnGpuTest, SlicesAndWideBias) {
  for (const testing::ConvolutionShape& s : {testing::ConvolutionShape{28, 96, 128, 3}, {14, 16, 48, 5}}) {
    ConvolutionProblem problem = Problem(Pass::kForward, 5, s);
    problem.x_pitch = s.c + 24;
    problem.y_pitch = s.k + 40;
    problem.wide_bias = true;
    Check(problem);
  }
}

TEST(ConvolutionOnGpuTest, PixelsBeyondTheLastTile) {
  for (const Pass pass : {Pass::kForward, Pass::kBackwardData}) {
    for (const testing::ConvolutionShape& s :
         {testing::ConvolutionShape{1, 8, 8, 3}, {9, 40, 72, 5}, {13, 136, 200, 1}}) {
      Check(Problem(pass, 1, s));
    }
  }
}

// Kernels for compute capability 9.0 only.
TEST(ConvolutionOnGpuTest, WeightGradients) {
  if (ComputeCapability() != 90) GTEST_SKIP() << "a GPU of another compute capability";
  std::vector<ConvolutionProblem> problems;
  for (const testing::ConvolutionShape& s : testing::kGoogLeNetShapes) {
    if (s.kernel == 3) problems.push_back(Problem(Pass::kBackwardWeights, 3, s));
  }
  for (const testing::ConvolutionShape& s :
       {testing::ConvolutionShape{1, 8, 8, 3}, {9, 40, 72, 3}, {13, 136, 200, 3}}) {
    problems.push_back(Problem(Pass::kBackwardWeights, 5, s));
  }
  problems.push_back(Problem(Pass::kBackwardWeights, 256, {28, 96, 128, 3}));
  for (ConvolutionProblem& problem : problems) {
    problem.wide_dw = true;
    Check(problem);
    problem.x_pitch = problem.c + 64;
    problem.y_pitch = problem.k + 40;
    Check(problem);
  }
  for (const auto& [h, w] : {std::pair{1, 9}, {9, 1}, {6, 2}}) {
    ConvolutionProblem problem = Problem(Pass::kBackwardWeights, 5, {9, 40, 72, 3});
    problem.h = h;
    problem.w = w;
    problem.wide_dw = true;
    Check(problem);
  }
}

TEST(ConvolutionOnGpuTest, AtTheBatchOfABenchmark) {
  for (const Pass pass : {Pass::kForward, Pass::kBackwardData}) Check(Problem(pass, 256, {28, 96, 128, 3}));
}

TEST(ConvolutionOnGpuTest, StemWithMaxPool) {
  for (const auto& [n, h, w] : {std::array{3, 224, 224}, {1, 225, 197}, {5, 33, 33}, {2, 19, 450}}) {
    for (const Pass pass : {Pass::kForward, Pass::kBackwardWeights}) {
      ConvolutionProblem problem = {.pass = pass, .n = n, .h = h, .w = w, .c = 8, .k = 64, .kernel = 7};
      problem.stride = 2;
      problem.pad = 3;
      problem.pool_y = true;
      problem.bias = problem.relu = pass == Pass::kForward;
      Check(problem);
    }
  }
}

TEST(ConvolutionOnGpuTest, PoolBranchesOfGoogLeNet) {
  for (const Pass pass : {Pass::kForward, Pass::kBackwardWeights}) {
    for (const testing::ConvolutionShape& s : testing::kPoolBranches) {
      ConvolutionProblem problem = Problem(pass, 5, s);
      problem.pool_x = true;
      problem.x_pitch = s.c + 16;
      if (pass == Pass::kForward) problem.y_pitch = s.k + 40;
      Check(problem);
    }
  }
}

}  // namespace
}  // namespace deeper
