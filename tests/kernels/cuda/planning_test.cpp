// The planning device, and the descriptions and sizes of problems.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <future>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "kernels/base/bf16.h"
#include "kernels/cuda/planning_device.h"
#include "kernels/cuda/plans/cublaslt.h"
#include "kernels/cuda/plans/cuda_problem.h"
#include "tests/data_directory.h"

namespace deeper {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::unique_ptr<PlanningDevice> MakeDevice() {
  std::ifstream in(testing::DataDirectory(DEEPER_DEVICES_DIR, "tests/devices") / "device-h200.json");
  auto device = MakePlanningDevice(std::string(std::istreambuf_iterator<char>(in), {}));
  EXPECT_TRUE(device.ok()) << device.status();
  return *std::move(device);
}

const ConvolutionProblem kConvolution = {.dtype = DType::kBf16,
                                         .n = 2,
                                         .h = 8,
                                         .w = 6,
                                         .c = 16,
                                         .k = 32,
                                         .kernel = 3,
                                         .stride = 2,
                                         .pad = 1,
                                         .bias = true,
                                         .relu = true};
const MatmulProblem kMatmul = {.m = 4,
                               .n = 10,
                               .k = 16,
                               .in = DType::kBf16,
                               .out = DType::kF32,
                               .transpose_b = true,
                               .a_stride = 24,
                               .b_stride = 16,
                               .d_stride = 12,
                               .bias = true};

TEST(CudaProblemTest, WordsHoldEverything) {
  EXPECT_EQ(ToString(kConvolution),
            "convolution forward bf16: x 2x8x6x16 (NHWC), 32 filters 3x3, stride 2, pad 1 + bias + relu");
  EXPECT_EQ(ToString(kMatmul),
            "matmul bf16 to fp32: m 4, n 10, k 16, a stride 24, b transposed, stride 16, d stride 12 + bias");
}

// Ranks may be threads. Names that are equal are one.
TEST(CudaProblemTest, LaunchesAreNamedByManyThreads) {
  constexpr int kNames = 2000;
  const auto names = [] {
    std::vector<const char*> made;
    ConvolutionProblem problem = kConvolution;
    for (problem.kernel = 1; problem.kernel <= kNames; ++problem.kernel) {
      problem.h = problem.w = problem.kernel;
      made.push_back(LaunchOf(problem).name);
    }
    return made;
  };
  std::vector<std::future<std::vector<const char*>>> threads;
  for (int i = 0; i < 4; ++i) threads.push_back(std::async(std::launch::async, names));
  const std::vector<const char*> expected = names();
  for (auto& thread : threads) EXPECT_EQ(thread.get(), expected);
}

TEST(CudaProblemTest, SizesOfOperands) {
  constexpr size_t kX = 2 * 8 * 6 * 16 * 2, kW = 32 * 9 * 16 * 2, kY = 2 * 4 * 3 * 32 * 2;
  ConvolutionProblem convolution = kConvolution;
  OperandSizes sizes = SizesOf(convolution);
  EXPECT_EQ(sizes.a, kX);
  EXPECT_EQ(sizes.b, kW);
  EXPECT_EQ(sizes.bias, 64u);
  EXPECT_EQ(sizes.d, kY);
  convolution.bias = convolution.relu = false;
  convolution.pass = ConvolutionProblem::Pass::kBackwardData;
  sizes = SizesOf(convolution);
  EXPECT_EQ(sizes.a, kY);
  EXPECT_EQ(sizes.b, kW);
  EXPECT_EQ(sizes.bias, 0u);
  EXPECT_EQ(sizes.d, kX);
  convolution.pass = ConvolutionProblem::Pass::kBackwardWeights;
  sizes = SizesOf(convolution);
  EXPECT_EQ(sizes.a, kX);
  EXPECT_EQ(sizes.b, kY);
  EXPECT_EQ(sizes.d, kW);

  sizes = SizesOf(kMatmul);  // the last row has no gap after it
  EXPECT_EQ(sizes.a, (3 * 24 + 16) * 2u);
  EXPECT_EQ(sizes.b, 10 * 16 * 2u);
  EXPECT_EQ(sizes.bias, 10 * 4u);
  EXPECT_EQ(sizes.d, (3 * 12 + 10) * 4u);
}

TEST(CudaProblemTest, Launches) {
  const Launch convolution = LaunchOf(kConvolution);
  EXPECT_STREQ(convolution.name, "conv 3x3 forward + bias + relu");
  EXPECT_EQ(convolution.bytes, (2 * 8 * 6 * 16 + 32 * 9 * 16 + 32 + 2 * 4 * 3 * 32) * 2);
  EXPECT_EQ(convolution.macs, 2 * 4 * 3 * 32 * 9 * 16);
  const Launch matmul = LaunchOf(kMatmul);
  EXPECT_STREQ(matmul.name, "matmul nt + bias");
  EXPECT_EQ(matmul.bytes, (4 * 16 + 16 * 10) * 2 + (4 * 10 + 10) * 4);
  EXPECT_EQ(matmul.macs, 4 * 10 * 16);
}

TEST(CudaProblemTest, WideGradientsOfWeights) {
  ConvolutionProblem problem = kConvolution;
  problem.pass = ConvolutionProblem::Pass::kBackwardWeights;
  problem.bias = problem.relu = false;
  const ConvolutionProblem narrow = problem;
  problem.wide_dw = true;
  EXPECT_EQ(ToString(problem), ToString(narrow) + ", dw fp32");
  EXPECT_EQ(SizesOf(problem).d, 2 * SizesOf(narrow).d);
  EXPECT_EQ(SizesOf(problem).out, DType::kF32);
  EXPECT_EQ(LaunchOf(problem).bytes - LaunchOf(narrow).bytes, 32 * 9 * 16 * 2);
}

TEST(CudaProblemTest, PooledInputs) {
  ConvolutionProblem pooled = {.n = 2, .h = 7, .w = 6, .c = 16, .k = 32, .bias = true, .relu = true};
  pooled.pool_x = true;
  pooled.x_pitch = 24;
  EXPECT_EQ(
      ToString(pooled),
      "convolution forward bf16: x 2x7x6x16 (NHWC in pixels of 24, max pooled), 32 filters 1x1, stride 1, "
      "pad 0 + bias + relu");
  EXPECT_EQ(SizesOf(pooled).argmax, 84 * 16u);
  const Launch forward = LaunchOf(pooled);
  EXPECT_STREQ(forward.name, "max pool + conv 1x1 forward + bias + relu");
  EXPECT_EQ(forward.bytes, (84 * 16 + 32 * 16 + 32 + 84 * 32) * 2 + 84 * 16);

  pooled.bias = pooled.relu = false;
  pooled.pass = ConvolutionProblem::Pass::kBackwardWeights;
  EXPECT_EQ(SizesOf(pooled).argmax, 0u);
  EXPECT_EQ(SizesOf(pooled).d, 32 * 16 * sizeof(float));
  EXPECT_EQ(SizesOf(pooled).out, DType::kF32);
  const Launch gradient = LaunchOf(pooled);
  EXPECT_STREQ(gradient.name, "max pool + conv 1x1 backward weights");
  EXPECT_EQ(gradient.bytes, 84 * (16 + 32) * 2 + 32 * 16 * 4);
}

TEST(CudaProblemTest, PooledOutputs) {
  ConvolutionProblem pooled = {.n = 2, .h = 23, .w = 18, .c = 8, .k = 64, .kernel = 7};
  pooled.stride = 2;
  pooled.pad = 3;
  pooled.bias = pooled.relu = pooled.pool_y = true;  // 12 x 9 places, 6 x 5 windows
  EXPECT_THAT(ToString(pooled), HasSubstr("stride 2, pad 3 + bias + relu + max pool"));
  EXPECT_EQ(SizesOf(pooled).argmax, 2u * 6 * 5 * 64);
  EXPECT_EQ(SizesOf(pooled).d, 2u * 6 * 5 * 64 * sizeof(bf16));
  const Launch forward = LaunchOf(pooled);
  EXPECT_STREQ(forward.name, "conv 7x7 forward + bias + relu + max pool");
  EXPECT_EQ(forward.bytes, (2 * 23 * 18 * 8 + 64 * 49 * 8 + 64 + 2 * 6 * 5 * 64) * 2 + 2 * 6 * 5 * 64);
  EXPECT_EQ(forward.macs, 2 * 12 * 9 * 64 * 49 * 4) << "the other channels are zeros";

  pooled.bias = pooled.relu = false;
  pooled.pass = ConvolutionProblem::Pass::kBackwardWeights;
  EXPECT_EQ(SizesOf(pooled).b, 2u * 6 * 5 * 64 * sizeof(bf16));
  EXPECT_EQ(SizesOf(pooled).d, 64u * 49 * 8 * sizeof(float));
  EXPECT_EQ(SizesOf(pooled).sums, 64 * sizeof(float));
  EXPECT_EQ(SizesOf(pooled).argmax, 2u * 6 * 5 * 64);
  const Launch gradient = LaunchOf(pooled);
  EXPECT_STREQ(gradient.name, "conv 7x7 backward weights + max pool");
  EXPECT_EQ(gradient.bytes, 2 * 23 * 18 * 8 * 2 + 2 * 6 * 5 * 64 * 3 + (64 * 49 * 8 + 64) * 4);
  EXPECT_EQ(gradient.macs, forward.macs);
}

TEST(PlanningDeviceTest, IsWhatItsPropertiesSay) {
  const auto device = MakeDevice();
  EXPECT_THAT(device->Describe(), HasSubstr("NVIDIA H200, 132 SMs, compute capability 9.0, cuDNN "));
  EXPECT_EQ(device->mode(), CudaDevice::Mode::kPlan);
  EXPECT_EQ(device->AvailableBytes(), 150754820096u);
  EXPECT_EQ(MakePlanningDevice("{}").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(PlanningDeviceTest, MemoryHasAddressesOnly) {
  const auto device = MakeDevice();
  const Buffer large = device->Allocate(size_t{1} << 45), odd = device->Allocate(5),
               next = device->Allocate(1);
  ASSERT_NE(large.data(), nullptr);
  EXPECT_EQ(large.bytes(), size_t{1} << 45);
  EXPECT_GE(odd.data(), large.data() + large.bytes());
  EXPECT_GE(next.data(), odd.data() + odd.bytes());
  for (const Buffer* buffer : {&large, &odd, &next}) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 256, 0u);
  }
  EXPECT_EQ(device->Allocate(0).data(), nullptr);
  device->Copy(large.data(), odd.data(), 5);
  const Buffer staging = device->AllocateStaging(100);
  ASSERT_NE(staging.data(), nullptr);
  staging.data()[99] = std::byte{1};
}

TEST(PlanningDeviceTest, WritesDownWhatWouldBeLaunched) {
  const auto device = MakeDevice();
  const auto convolution = device->Plan(kConvolution);
  ASSERT_TRUE(convolution.ok()) << convolution.status();
  const auto matmul = device->Plan(kMatmul);
  ASSERT_TRUE(matmul.ok()) << matmul.status();
  EXPECT_EQ((*matmul)->workspace_bytes(), cublaslt::kMaxWorkspaceBytes);
  EXPECT_THAT(device->launches(), IsEmpty());

  device->MakeRecording()->Run([&] {
    device->Annotate("conv1");
    (*convolution)->Run({});
    device->Annotate("fc");
    (*matmul)->Run({});
    EXPECT_FALSE(device->Begin({"own", 7}));
  });
  ASSERT_THAT(device->launches(), SizeIs(3));
  EXPECT_EQ(device->launches()[0].scope, "conv1");
  EXPECT_STREQ(device->launches()[0].launch.name, LaunchOf(kConvolution).name);
  EXPECT_EQ(device->launches()[1].scope, "fc");
  EXPECT_EQ(device->launches()[1].launch.macs, kMatmul.macs());
  EXPECT_STREQ(device->launches()[2].launch.name, "own");
  EXPECT_EQ(device->launches()[2].launch.bytes, 7);
  device->Clear();
  EXPECT_THAT(device->launches(), IsEmpty());
}

TEST(PlanningDeviceTest, MaskedGradientsAreOurOwnKernels) {
  ConvolutionProblem problem = kConvolution;
  problem.pass = ConvolutionProblem::Pass::kBackwardData;
  problem.stride = 1;
  problem.bias = problem.relu = false;
  problem.mask_dx = true;
  const auto device = MakeDevice();
  const auto plan = device->Plan(problem);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ((*plan)->workspace_bytes(), 16 * sizeof(float));  // 96 pixels are one tile
}

TEST(PlanningDeviceTest, PooledInputsAreOurOwnKernels) {
  ConvolutionProblem problem = {.n = 3, .h = 14, .w = 14, .c = 480, .k = 64};
  problem.pool_x = true;
  const auto device = MakeDevice();
  const auto forward = device->Plan(problem);
  ASSERT_TRUE(forward.ok()) << forward.status();
  EXPECT_EQ((*forward)->workspace_bytes(), 0u);
  problem.pass = ConvolutionProblem::Pass::kBackwardWeights;
  const auto gradient = device->Plan(problem);
  ASSERT_TRUE(gradient.ok()) << gradient.status();
  // 588 pixels are 10 steps, and each step is a split.
  EXPECT_EQ((*gradient)->workspace_bytes(), 10u * 64 * 480 * sizeof(float));
  problem.dtype = DType::kF32;
  EXPECT_EQ(device->Plan(problem).status().code(), absl::StatusCode::kUnimplemented);
}

// Those in fp32 are ours where they save a copy of a large slice, else the library's.
TEST(PlanningDeviceTest, GradientsOfWeights) {
  const auto device = MakeDevice();
  const auto plan = [&](int64_t size, int64_t c, int64_t k, int64_t x_pitch) {
    ConvolutionProblem problem = {.n = 256, .h = size, .w = size, .c = c, .k = k, .kernel = 3, .pad = 1};
    problem.pass = ConvolutionProblem::Pass::kBackwardWeights;
    problem.x_pitch = x_pitch;
    problem.wide_dw = true;
    const auto made = device->Plan(problem);
    EXPECT_TRUE(made.ok()) << made.status();
    device->Clear();
    (*made)->Run({});
    std::vector<std::string> names;
    for (const PlannedLaunch& launch : device->launches()) names.emplace_back(launch.launch.name);
    return std::pair(names, (*made)->workspace_bytes());
  };
  using ::testing::ElementsAre;
  const auto [dense, dense_bytes] = plan(28, 96, 128, 0);
  EXPECT_THAT(dense, ElementsAre("conv 3x3 backward weights", "widen"));
  EXPECT_GE(dense_bytes, 128 * 9 * 96 * sizeof(bf16));
  const auto [slice, slice_bytes] = plan(28, 96, 128, 288);
  EXPECT_THAT(slice, ElementsAre("conv 3x3 backward weights"));
  EXPECT_EQ(device->launches()[0].work.partial_bytes, static_cast<int64_t>(slice_bytes));
  const auto [small_slice, small_bytes] = plan(7, 192, 384, 1072);
  EXPECT_THAT(small_slice, ElementsAre("copy of a slice", "conv 3x3 backward weights", "widen"));
  EXPECT_EQ(device->launches()[0].launch.bytes, 2 * 256 * 7 * 7 * 192 * 2) << "read and written";
}

TEST(PlanningDeviceTest, SaysWhatCannotBeComputed) {
  ConvolutionProblem problem = kConvolution;
  problem.dtype = DType::kU8;
  const auto device = MakeDevice();
  for (int attempt = 0; attempt < 2; ++attempt) {
    const absl::Status status = device->Plan(problem).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(std::string(status.message()), HasSubstr(ToString(problem)));
  }
}

}  // namespace
}  // namespace deeper
