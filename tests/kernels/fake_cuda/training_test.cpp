// Whole runs on the GPU device over the fake CUDA: the bits of the CUDA ops on the host, whatever the order
// in which streams get on. $DEEPER_FAKE_CUDA_SEEDS is how many orders (default 8).
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "kernels/base/device.h"
#include "tests/kernels/fake_cuda/fake_cuda.h"
#include "tests/kernels/fake_cuda/run.h"
#include "tests/kernels/test_device.h"

namespace deeper {
namespace {

using testing::Outcome;

Outcome RunOn(Device& device, RunConfig config) {
  const testing::RunDirectory directory;
  config.checkpoint_dir = directory.path() / "checkpoints";
  config.metrics_out = directory.path() / "metrics";
  const auto comm = MakeSingleCommunicator();
  EXPECT_EQ(Train(config, *comm, device, nullptr), absl::OkStatus());
  return directory.Read();
}

int Seeds() {
  const char* const seeds = std::getenv("DEEPER_FAKE_CUDA_SEEDS");
  return seeds == nullptr ? 4 : std::atoi(seeds);
}

struct Case {
  std::string model;
  DType precision;
};

class FakeCudaTraining : public ::testing::TestWithParam<Case> {};

TEST_P(FakeCudaTraining, IsTheSameBitsAsOnTheHost) {
  const auto& [model, precision] = GetParam();
  const RunConfig config = testing::ShortRun(model, precision);
  const Outcome expected = RunOn(*testing::MakeHostCudaDevice(), config);
  ASSERT_EQ(expected.files.size(), 3u);
  CudaOptions options;
  options.deterministic = true;
  options.plan_cache = ::testing::TempDir() + "fake_cuda_plans_" + std::to_string(getpid());
  for (int seed = 0; seed < Seeds(); ++seed) {
    SCOPED_TRACE(seed);
    fake_cuda::Reset({.seed = static_cast<uint64_t>(seed)});
    const auto device = MakeCudaDevice(options);
    ASSERT_TRUE(device.ok()) << device.status();
    const Outcome actual = RunOn(**device, config);
    testing::ExpectSame(actual, expected);
    EXPECT_GT(fake_cuda::Calls().at("cudaGraphLaunch"), 0) << "nothing was recorded";
    if (HasFailure()) break;
  }
  std::filesystem::remove(options.plan_cache);
}

INSTANTIATE_TEST_SUITE_P(, FakeCudaTraining,
                         ::testing::Values(Case{"nin-cifar", DType::kF32}, Case{"nin-cifar", DType::kBf16},
                                           Case{"googlenet", DType::kF32}, Case{"googlenet", DType::kBf16}),
                         [](const auto& test) {
                           std::string name = test.param.model + "_" + NameOf(test.param.precision);
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace deeper
