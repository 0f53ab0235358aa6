// The GPU device: how it opens, or says why it cannot; branches, recordings and profiles.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "kernels/cuda/base/cuda_device.h"
#include "kernels/cuda/tensor_core/conv_tensor_core.h"
#include "kernels/ops/arrays/arrays.h"
#include "tests/data/scratch.h"
#include "tests/kernels/fake_cuda/fake_cuda.h"
#include "tests/kernels/fake_cuda/run.h"
#include "tests/kernels/test_device.h"

namespace deeper {
namespace {

using fake_cuda::Reset;
using testing::DeviceArray;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

class GpuDeviceTest : public ::testing::Test {
 protected:
  void TearDown() override { Reset({}); }
};

TEST_F(GpuDeviceTest, SaysWhyItCannotOpen) {
  struct Case {
    fake_cuda::Options options;
    std::string message;
  };
  const auto failing = [](const char* call, cudaError_t error) {
    return fake_cuda::Options{.faults = {{.call = call, .nth = 1, .error = error}}};
  };
  const Case cases[] = {
      {failing("cudaDriverGetVersion", cudaErrorUnknown), "this machine has no NVIDIA driver"},
      {failing("cudaGetDeviceCount", cudaErrorInsufficientDriver), "update the driver, or use --device=cpu"},
      {failing("cudaGetDeviceCount", cudaErrorLaunchFailure), "CUDA failed to start: cudaErrorLaunchFailure"},
      {{.devices = 0}, "CUDA finds no GPU; check CUDA_VISIBLE_DEVICES"},
      {{.capability = 75}, "GPU 0 is a Fake GPU of compute capability 7.5; this program needs 8.0"},
      {failing("cudaGetDeviceProperties", cudaErrorInvalidValue),
       "GPU 0 cannot be used: cudaErrorInvalidValue"},
      {failing("cudaFree", cudaErrorMemoryAllocation), "GPU 0 cannot be used: cudaErrorMemoryAllocation"},
      {failing("cudaFuncGetAttributes", cudaErrorNoKernelImageForDevice),
       "GPU 0 is a Fake GPU of compute capability 9.0, and this program was built without code for it: build "
       "with -DCMAKE_CUDA_ARCHITECTURES=90"},
      {failing("cudaFuncGetAttributes", cudaErrorInvalidDeviceFunction), "was built without code for it"},
      {failing("cudaFuncGetAttributes", cudaErrorLaunchFailure),
       "GPU 0 cannot be used: cudaErrorLaunchFailure"},
      {failing("cudnnCreate", cudaErrorUnknown), "cuDNN: CUDNN_STATUS_OF_THE_FAKE"},
      {failing("cublasLtCreate", cudaErrorUnknown), "cuBLASLt: CUBLAS_STATUS_OF_THE_FAKE"},
  };
  for (const Case& c : cases) {
    Reset(c.options);
    const auto device = MakeCudaDevice({});
    ASSERT_FALSE(device.ok()) << c.message;
    EXPECT_THAT(std::string(device.status().message()), HasSubstr("--device=cuda: "));
    EXPECT_THAT(std::string(device.status().message()), HasSubstr(c.message));
  }
}

TEST_F(GpuDeviceTest, DescribesItself) {
  Reset({.devices = 2});
  const auto device = MakeCudaDevice({.index = 3, .plan_cache = {}}).value();  // modulo their number
  EXPECT_THAT(device->Describe(),
              MatchesRegex("Fake GPU, 132 SMs, compute capability 9.0, CUDA .*, cuDNN .*"));
  EXPECT_EQ(device->address(), "FFFF:FF:01.0");
  EXPECT_EQ(device->bf16_support(), Bf16Support::kNative);
}

TEST_F(GpuDeviceTest, MemoryThatIsNotThereIsNoFailure) {
  Reset({.memory_bytes = 1 << 20, .faults = {{"cudaMallocHost", 1, cudaErrorMemoryAllocation}}});
  const auto device = MakeCudaDevice({}).value();
  EXPECT_EQ(device->AvailableBytes(), size_t{1} << 20);
  EXPECT_EQ(device->Allocate(2 << 20).data(), nullptr);
  EXPECT_EQ(device->AllocateStaging(64).data(), nullptr);
  EXPECT_EQ(device->Allocate(0).data(), nullptr);
  EXPECT_NE(device->Allocate(64).data(), nullptr) << "the error was not cleared";
}

TEST_F(GpuDeviceTest, DownloadsWaitForWork) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    Reset({.seed = seed});
    const auto device = MakeCudaDevice({}).value();
    DeviceArray<float> data(300, *device);
    data.Write(std::vector<float>(300, 1));
    const Buffer arrived = device->AllocateStaging(300 * sizeof(float));
    for (int i = 0; i < 3; ++i) Scale(*device, 2, data.data(), 300);
    device->StartDownload(arrived.data(), data.data(), arrived.bytes())->Wait();
    EXPECT_EQ(arrived.as<float>()[299], 8) << "seed " << seed;
  }
}

TEST_F(GpuDeviceTest, MemoryIsZeroBeforeUploads) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    Reset({.seed = seed});
    const auto device = MakeCudaDevice({}).value();
    const Buffer sent = device->AllocateStaging(300 * sizeof(float));
    const Buffer arrived = device->AllocateStaging(sent.bytes());
    sent.as<float>()[299] = 7;
    const Buffer data = device->Allocate(sent.bytes());
    device->Upload(data.data(), sent.data(), sent.bytes());
    device->JoinUploads();
    device->StartDownload(arrived.data(), data.data(), arrived.bytes())->Wait();
    EXPECT_EQ(arrived.as<float>()[299], 7) << "seed " << seed;
  }
}

// By a kernel of deeper, or by the library, which writes bf16 that is widened.
TEST_F(GpuDeviceTest, WritesGradientsOfWeightsInFp32) {
  ConvolutionProblem problem = {.n = 2, .h = 5, .w = 6, .c = 8, .k = 16, .kernel = 3, .pad = 1};
  problem.pass = ConvolutionProblem::Pass::kBackwardWeights;
  problem.wide_dw = true;
  std::vector<bf16> x(60 * 8), dy(60 * 16);
  for (size_t i = 0; i < x.size(); ++i) x[i] = ToBf16(static_cast<float>(i % 7) - 3.1f);
  for (size_t i = 0; i < dy.size(); ++i) dy[i] = ToBf16(static_cast<float>(i % 5) - 2.3f);
  std::vector<float> expected(16 * 9 * 8);
  const auto host = testing::MakeHostCudaDevice();
  (*AsCuda(*host).Plan(problem))->Run({.a = x.data(), .b = dy.data(), .d = expected.data()});
  for (const OwnKernels own : {OwnKernels::kNone, OwnKernels::kAll}) {
    for (uint64_t seed = 0; seed < 10; ++seed) {
      Reset({.seed = seed});
      const auto device = MakeCudaDevice({}, {.own_kernels = own}).value();
      const DeviceArray<bf16> x_there(x, *device), dy_there(dy, *device);
      const DeviceArray<float> dw(expected.size(), *device);
      const auto plan = AsCuda(*device).Plan(problem).value();
      const Buffer workspace = device->Allocate(plan->workspace_bytes());
      plan->Run({.a = x_there.data(), .b = dy_there.data(), .d = dw.data(), .workspace = workspace.data()});
      EXPECT_EQ(dw.Read(), expected) << "seed " << seed;
    }
  }
}

// A step that profiles, records or does neither computes the same.
TEST_F(GpuDeviceTest, ProfilesWhatRan) {
  for (const bool graphs : {true, false}) {
    Reset({.seed = 1});
    const auto device = MakeCudaDevice({.graphs = graphs, .plan_cache = {}}).value();
    CudaDevice& cuda = AsCuda(*device);
    DeviceArray<float> data(300, *device), branch(300, *device);
    data.Write(std::vector<float>(300, 1));
    branch.Write(std::vector<float>(300, 1));
    const auto recording = device->MakeRecording();
    const auto step = [&] {
      device->Annotate("forward");
      cuda.Fork();
      cuda.Branch(0);
      Scale(*device, 2, data.data(), 300);
      cuda.Branch(2);
      Scale(*device, 3, branch.data(), 300);
      cuda.Join();
      device->Annotate("sum");
      Accumulate(*device, branch.data(), data.data(), 300);
    };
    for (int run = 0; run < 3; ++run) recording->Run(step);
    EXPECT_EQ(fake_cuda::Calls().contains("cudaGraphLaunch"), graphs);
    device->StartProfile();
    recording->Run(step);
    const std::vector<ProfiledLaunch> profile = device->StopProfile();
    ASSERT_EQ(profile.size(), 3u);
    EXPECT_EQ(profile[0].scope, "forward");
    EXPECT_EQ(profile[2].scope, "sum");
    for (const ProfiledLaunch& launch : profile) EXPECT_GT(launch.duration_ms, 0);
    // data, branch: (1, 1) (2+3, 3) (10+9, 9) (38+27, 27) (130+81, 81)
    EXPECT_EQ(data.Read(), std::vector<float>(300, 211));
    EXPECT_TRUE(device->StopProfile().empty());
  }
}

TEST_F(GpuDeviceTest, TimesHowLongTheStreamWaitsForTheHost) {
  // Work runs when the host waits for it (0), or at once (1). Every copy of the fake takes a microsecond.
  for (const uint64_t seed : {0, 1}) {
    Reset({.seed = seed});
    const auto device = MakeCudaDevice({}).value();
    DeviceArray<float> data(300, *device);
    const Buffer there = device->Allocate(4), here = device->AllocateStaging(4);
    const auto timer = device->MakeIdleTimer();
    for (int i = 0; i < 2; ++i) {
      Scale(*device, 2, data.data(), 300);
      timer->Start();
      for (int upload = 0; upload < 50; ++upload) {
        device->Upload(there.data(), here.data(), 4);
        device->WaitForUploads();
      }
      timer->Stop();
      device->Synchronize();
      if (seed == 0) {
        EXPECT_LT(timer->Milliseconds(), 0.01);
      } else {
        EXPECT_GT(timer->Milliseconds(), 0.04);
      }
    }
  }
}

// A kernel starts early if only another kernel of deeper is before it.
TEST_F(GpuDeviceTest, KernelsOfARecordingStartEarly) {
  struct Case {
    bool graphs, early_starts;
    int capability, expected;
  };
  for (const Case& c : {Case{true, true, 90, 3}, Case{true, false, 90, 0}, Case{false, true, 90, 0},
                        Case{true, true, 80, 0}}) {
    Reset({.capability = c.capability});
    CudaOptions options;
    options.graphs = c.graphs;
    options.early_starts = c.early_starts;
    const auto device = MakeCudaDevice(options).value();
    CudaDevice& cuda = AsCuda(*device);
    const auto product =
        cuda.Plan(ProductOf(ConvolutionProblem::Pass::kForward, DType::kF32, 1, 8, 8)).value();
    DeviceArray<float> data(300, *device), copy(300, *device), branch(300, *device);
    data.Write(std::vector<float>(300, 1));
    branch.Write(std::vector<float>(300, 1));
    const Buffer workspace = device->Allocate(product->workspace_bytes());
    const auto twice = [&](DeviceArray<float>& array) { Scale(*device, 2, array.data(), 300); };
    const auto recording = device->MakeRecording();
    const auto step = [&] {
      device->Copy(copy.data(), data.data(), 300 * sizeof(float));
      twice(data);  // after a copy
      twice(data);  // early
      cuda.Fork();
      cuda.Branch(0);
      twice(data);  // early
      cuda.Branch(1);
      twice(branch);  // after a node of another stream
      twice(branch);  // early
      cuda.Join();
      twice(data);  // after two nodes
      product->Run(
          {.a = copy.data(), .b = copy.data() + 8, .d = copy.data() + 80, .workspace = workspace.data()});
      twice(data);  // after a library
    };
    for (int run = 0; run < 3; ++run) recording->Run(step);
    EXPECT_EQ(fake_cuda::Calls()["early start"], c.expected) << c.graphs << c.early_starts << c.capability;
    EXPECT_EQ(data.Read(), std::vector<float>(300, 1 << 15));
    EXPECT_EQ(branch.Read(), std::vector<float>(300, 1 << 6));
  }
}

// ---- Library plans ---------------------------------------------------------------------------------------

const ConvolutionProblem kConvolution = {.n = 1, .h = 4, .w = 4, .c = 8, .k = 8, .bias = true, .relu = true};
const MatmulProblem kMatmul = ProductOf(ConvolutionProblem::Pass::kForward, DType::kBf16, 2, 8, 8);

TEST_F(GpuDeviceTest, ATypeThatNoLibraryHasIsRefused) {
  const auto device = MakeCudaDevice({}).value();
  ConvolutionProblem convolution = kConvolution;
  convolution.dtype = DType::kU8;
  EXPECT_THAT(std::string(AsCuda(*device).Plan(convolution).status().message()), HasSubstr("element type"));
  MatmulProblem matmul = kMatmul;
  matmul.in = DType::kU8;
  EXPECT_THAT(std::string(AsCuda(*device).Plan(matmul).status().message()), HasSubstr("element type"));
}

TEST_F(GpuDeviceTest, PlansAreTunedOnceAndFoundAgain) {
  const std::string file = ::testing::TempDir() + "device_test_plans_" + std::to_string(getpid());
  const auto launches = [&] {
    Reset({});
    const auto device = MakeCudaDevice({.plan_cache = file}).value();
    EXPECT_TRUE(AsCuda(*device).Plan(kConvolution).ok());
    EXPECT_TRUE(AsCuda(*device).Plan(kMatmul).ok());
    return fake_cuda::Calls().contains("launch");
  };
  EXPECT_TRUE(launches());
  EXPECT_FALSE(launches());
  // Of kernels with another hash, nothing would be found.
  EXPECT_THAT(testing::ReadBytes(file), HasSubstr(", kernels " + tensor_core::Version()));
  std::filesystem::remove(file);
}

// A call that fails while a plan is made: another plan, or its status.
TEST_F(GpuDeviceTest, EveryFailureOfALibraryIsAStatus) {
  const auto plan = [](const fake_cuda::Options& options) {
    Reset(options);
    const auto device = MakeCudaDevice({});
    if (!device.ok()) return std::vector{device.status()};
    return std::vector{AsCuda(**device).Plan(kConvolution).status(), AsCuda(**device).Plan(kMatmul).status()};
  };
  EXPECT_THAT(plan({}), ElementsAre(absl::OkStatus(), absl::OkStatus()));
  int failures = 0;
  for (const auto& [call, count] : fake_cuda::Calls()) {
    if (!call.starts_with("cudnn") && !call.starts_with("cublasLt")) continue;
    for (int nth = 1; nth <= count; ++nth) {
      for (const absl::Status& status : plan({.faults = {{call, nth, cudaErrorUnknown}}})) {
        failures += !status.ok();
        EXPECT_TRUE(status.ok() || absl::StrContains(status.message(), "cuDNN: CUDNN_") ||
                    absl::StrContains(status.message(), "cuBLASLt: CUBLAS_"))
            << call << ' ' << nth << ' ' << status;
      }
    }
  }
  EXPECT_GT(failures, 10);
}

using GpuDeviceDeathTest = GpuDeviceTest;

// Whether the faulty launch itself reports the fault, or a later call.
TEST_F(GpuDeviceDeathTest, AFaultOnTrialStaysOnRecord) {
  ConvolutionProblem pooled = kConvolution;
  pooled.pool_x = true;
  for (const uint64_t seed : {0, 1}) {
    const ScratchDir directory;
    const auto plan = [&] {
      Reset({.seed = seed, .own_kernels = fake_cuda::OwnKernels::kFault});
      CudaOptions options;
      options.plan_cache = directory / "plans";
      const auto device = MakeCudaDevice(options).value();
      (void)AsCuda(*device).Plan(pooled);
    };
    EXPECT_DEATH(plan(), "cudaErrorIllegalAddress: .* \\(on trial: own checked sm90 for convolution");
    const std::filesystem::directory_iterator files(directory.path());
    EXPECT_EQ(std::count_if(
                  begin(files), end(files),
                  [](const auto& file) { return absl::StrContains(file.path().string(), "plans.trial."); }),
              1);
  }
}

TEST_F(GpuDeviceDeathTest, APlanThatFailsIsNamed) {
  const auto run = [](const auto& problem, const char* call) {
    Reset({.faults = {{call, 2, cudaErrorUnknown}}});  // the first is the tuner's
    const auto device = MakeCudaDevice({.deterministic = true, .plan_cache = {}}).value();
    const auto plan = AsCuda(*device).Plan(problem).value();
    (*plan).Run({});
  };
  EXPECT_DEATH(run(kConvolution, "cudnnBackendExecute"),
               "conv 1x1 forward .*: cuDNN: CUDNN_STATUS_OF_THE_FAKE");
  EXPECT_DEATH(run(kMatmul, "cublasLtMatmul"), "matmul nt: cuBLASLt: CUBLAS_STATUS_OF_THE_FAKE");
}

}  // namespace
}  // namespace deeper
