// Whole runs on the GPU device over the fake CUDA: the bits of the CUDA ops on the host, whatever the order
// in which streams get on. $DEEPER_FAKE_CUDA_SEEDS is how many orders (default 8).
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "data/load/synthetic.h"
#include "kernels/base/device.h"
#include "tests/kernels/fake_cuda/fake_cuda.h"
#include "tests/kernels/fake_cuda/run.h"
#include "tests/kernels/test_device.h"
#include "trainer/engine/evaluate.h"

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

// Evaluations record their forward pass, and upload the next batch meanwhile.
TEST(FakeCudaEvaluation, IsTheSameAsOnTheHost) {
  const auto data = MakeSyntheticDataset({.samples = 21, .height = 12, .width = 12, .classes = 5});
  const Model model = *MakeModel("nin-cifar", {.num_classes = 5, .image_size = 10});
  const auto evaluate = [&](Device& device) {
    const auto net = *Network::Prepare(model, {4, DType::kBf16, /*training=*/false}, device);
    const auto params = *ParamStore::Create(net->Params(), device, false, net->wants_narrow_params());
    params->Initialize(1);
    EXPECT_EQ(net->Bind(*params), absl::OkStatus());
    const auto comm = MakeSingleCommunicator();
    return *Evaluate(*net, device, *data, {}, *comm, Tta::kNone);
  };
  const EvalResult expected = evaluate(*testing::MakeHostCudaDevice());
  CudaOptions options;
  options.deterministic = true;
  for (int seed = 0; seed < Seeds(); ++seed) {
    fake_cuda::Reset({.seed = static_cast<uint64_t>(seed)});
    const EvalResult actual = evaluate(**MakeCudaDevice(options));
    EXPECT_EQ(actual.count, 21);
    EXPECT_EQ(actual.loss, expected.loss);
    EXPECT_EQ(actual.top1, expected.top1);
    EXPECT_EQ(fake_cuda::Calls().at("cudaGraphLaunch"), 4) << "the first two of six passes are not recorded";
  }
}

struct Case {
  std::string model;
  DType precision;
  int64_t micro_batch = 2;
};

class FakeCudaTraining : public ::testing::TestWithParam<Case> {};

TEST_P(FakeCudaTraining, IsTheSameBitsAsOnTheHost) {
  const auto& [model, precision, micro_batch] = GetParam();
  RunConfig config = testing::ShortRun(model, precision);
  config.micro_batch = micro_batch;
  // A step of one micro-batch has a recording for each buffer of images, and the third run of it is replayed.
  if (micro_batch == config.global_batch) config.max_steps = 6;
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
                                           Case{"googlenet", DType::kF32}, Case{"googlenet", DType::kBf16},
                                           Case{"nin-cifar", DType::kBf16, 4}),
                         [](const auto& test) {
                           std::string name = test.param.model + "_" + NameOf(test.param.precision);
                           if (test.param.micro_batch != 2) name += "_whole";
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace deeper
