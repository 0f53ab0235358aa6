// Compares our tensor core convolutions with cuDNN on a GPU.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstring>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/plans/cuda_problem.h"
#include "kernels/cuda/plans/cudnn.h"
#include "kernels/cuda/tensor_core/conv_check.h"
#include "kernels/cuda/tensor_core/conv_kernels.h"
#include "kernels/cuda/tensor_core/conv_pool_tiling.h"
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
  ConvolutionCheck check(problem, library->get(), device);
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

TEST(ConvolutionOnGpuTest, AtTheBatchOfABenchmark) {
  for (const Pass pass : {Pass::kForward, Pass::kBackwardData}) Check(Problem(pass, 256, {28, 96, 128, 3}));
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

// Finds the maxima on the host and runs the plain kernel: the same products in the same order.
TEST(ConvolutionOnGpuTest, PooledIsPoolingThenConvolution) {
  const conv::Gemm pooled = tensor_core::GemmOf(Problem(Pass::kForward, 3, {14, 144, 64, 1}));
  conv::Gemm sliced = pooled;
  sliced.in_pitch = 160;
  const auto stream = static_cast<cudaStream_t>(TestDevice().stream().native);
  const auto count = [](int64_t n) { return static_cast<size_t>(n); };
  const std::vector<bf16> x = Random<bf16>(sizeof(bf16) * count(sliced.pixels() * sliced.in_pitch));
  std::vector<bf16> maxima;
  std::vector<uint8_t> positions;
  for (int index = 0; index < sliced.pixels(); ++index) {
    const conv::Pixel at = conv::PixelAt(sliced, index);
    for (int channel = 0; channel < sliced.depth; channel += conv::kChunk) {
      const conv::Pooled chunk =
          conv::PoolChunk(sliced, x.data(), {at.row, at.column, index * sliced.in_pitch}, channel);
      maxima.insert(maxima.end(), std::begin(chunk.values.v), std::end(chunk.values.v));
      positions.insert(positions.end(), std::begin(chunk.positions.v), std::end(chunk.positions.v));
    }
  }
  const DeviceArray<bf16> in(x, TestDevice()), pooled_in(maxima, TestDevice()),
      weights(Random<bf16>(sizeof(bf16) * count(pooled.depth * pooled.columns)), TestDevice()),
      expected(count(pooled.pixels() * pooled.columns), TestDevice()),
      y(expected.Read().size(), TestDevice());
  const DeviceArray<uint8_t> found(positions.size(), TestDevice());
  for (const int tile_columns : {64, 128}) {
    SCOPED_TRACE(tile_columns);
    conv::Arguments plain = {pooled, pooled_in.data(), weights.data(), {}},
                    fused = {sliced, in.data(), weights.data(), {}};
    plain.epilogue.out = expected.data();
    fused.epilogue.out = y.data();
    ASSERT_EQ(conv::LaunchSm80(tile_columns, plain, stream), cudaSuccess);
    fused.positions = found.data();
    ASSERT_EQ(conv::LaunchPooledSm80(tile_columns, fused, stream), cudaSuccess);
    const std::vector<bf16> y_read = y.Read(), expected_read = expected.Read();
    EXPECT_EQ(std::memcmp(y_read.data(), expected_read.data(), sizeof(bf16) * y_read.size()), 0);
    EXPECT_EQ(found.Read(), positions);
  }
}

}  // namespace
}  // namespace deeper
