// Whole runs on the GPU device over the fake CUDA: the bits of the CUDA ops on the host, whatever the order
// in which streams get on, also of a run that a signal stops and that resumes. $DEEPER_FAKE_CUDA_SEEDS is how
// many orders (default 4), or which ("700-799").
#include <gtest/gtest.h>
#include <omp.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "data/load/synthetic.h"
#include "kernels/base/device.h"
#include "kernels/base/exit_code.h"
#include "tests/kernels/fake_cuda/fake_cuda.h"
#include "tests/kernels/fake_cuda/run.h"
#include "tests/kernels/test_device.h"
#include "trainer/engine/evaluate.h"

namespace deeper {
namespace {

using testing::Outcome;

constexpr int kStoppedStep = 2;

// A run that a signal stops is run once more, with a new device.
template <class MakeDevice>
Outcome RunOn(const MakeDevice& make, RunConfig config, bool stops = false) {
  const testing::RunDirectory directory;
  config.checkpoint_dir = directory.path() / "checkpoints";
  config.metrics_out = directory.path() / "metrics";
  const auto comm = MakeSingleCommunicator();
  if (stops) {
    const absl::Status status = Train(config, *comm, *make(), nullptr);
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kPreempted) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), "stopped by a signal after step 2")) << status;
  }
  EXPECT_EQ(Train(config, *comm, *make(), nullptr), absl::OkStatus());
  return directory.Read();
}

// What a run shows that stopped after kStoppedStep: it does not evaluate then.
Outcome WithoutEvaluation(Outcome outcome) {
  std::erase_if(outcome.numbers, [](const std::string& number) {
    return number.starts_with("eval " + std::to_string(kStoppedStep));
  });
  return outcome;
}

struct Seeds {
  uint64_t first = 0, last = 3;
};
Seeds SeedsToRun() {
  Seeds seeds;
  const char* const text = std::getenv("DEEPER_FAKE_CUDA_SEEDS");
  if (text == nullptr) return seeds;
  const std::vector<std::string> parts = absl::StrSplit(text, '-');
  const bool good = parts.size() == 2
                        ? absl::SimpleAtoi(parts[0], &seeds.first) && absl::SimpleAtoi(parts[1], &seeds.last)
                        : parts.size() == 1 && absl::SimpleAtoi(parts[0], &seeds.last) && seeds.last-- > 0;
  EXPECT_TRUE(good) << "DEEPER_FAKE_CUDA_SEEDS=" << text << " is no number, and no FIRST-LAST";
  return seeds;
}

// Evaluations record their forward pass, and upload the next batch meanwhile.
TEST(FakeCudaEvaluation, IsTheSameAsOnTheHost) {
  const auto data = MakeSyntheticDataset({.samples = 21, .height = 12, .width = 12, .classes = 5});
  const Model model = *MakeModel("nin-cifar", {.num_classes = 5, .image_size = 10});
  Tta tta = Tta::kNone;
  const auto evaluate = [&](Device& device) {
    const auto net = *Network::Prepare(model, {4, DType::kBf16, /*training=*/false}, device);
    const auto params = *ParamStore::Create(net->Params(), device, false, net->wants_narrow_params());
    params->Initialize(1);
    EXPECT_EQ(net->Bind(*params), absl::OkStatus());
    const auto comm = MakeSingleCommunicator();
    return *Evaluate(*net, device, *data, {}, *comm, tta);
  };
  CudaOptions options;
  options.deterministic = true;
  const Seeds seeds = SeedsToRun();
  for (const Tta views : {Tta::kNone, Tta::kFlip}) {
    tta = views;
    const EvalResult expected = evaluate(*testing::MakeHostCudaDevice());
    for (uint64_t seed = seeds.first; seed <= seeds.last; ++seed) {
      fake_cuda::Reset({.seed = seed});
      const EvalResult actual = evaluate(**MakeCudaDevice(options));
      EXPECT_EQ(actual.count, 21);
      EXPECT_EQ(actual.loss, expected.loss);
      EXPECT_EQ(actual.top1, expected.top1);
      EXPECT_EQ(fake_cuda::Calls().at("cudaGraphLaunch"), tta == Tta::kNone ? 4 : 10)
          << "the first two of the passes, 6 or 12, are not recorded";
    }
  }
}

struct Case {
  std::string model;
  DType precision;
  int64_t micro_batch = 2;
  bool lars = false;  // and blurred pools
};

class FakeCudaTraining : public ::testing::TestWithParam<Case> {};

TEST_P(FakeCudaTraining, IsTheSameBitsAsOnTheHost) {
  const auto& [model, precision, micro_batch, lars] = GetParam();
  RunConfig config = testing::ShortRun(model, precision);
  config.micro_batch = micro_batch;
  config.blur_pool = lars;
  if (lars) config.optimizer = "lars";
  // A step of one micro-batch has a recording for each buffer of images, and the third run of it is replayed.
  const bool whole = micro_batch == config.global_batch;
  if (whole) config.max_steps = 6;
  omp_set_num_threads(1);
  const Outcome expected = RunOn(testing::MakeHostCudaDevice, config);
  ASSERT_EQ(expected.files.size(), whole ? 3u : 2u);
  CudaOptions options;
  options.deterministic = true;
  options.plan_cache = ::testing::TempDir() + "fake_cuda_plans_" + std::to_string(getpid());
  const auto make = [&] { return MakeCudaDevice(options).value(); };
  const Seeds seeds = SeedsToRun();
  for (uint64_t seed = seeds.first; seed <= seeds.last && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    if (seed % 100 == 99) std::cout << "seed " << seed << std::endl;
    // Every second run gets a signal in its second step, while one of its first two micro-batches starts.
    const bool stops = !whole && (seed + seed / 4) % 2 == 1;
    fake_cuda::Options fake = {.seed = seed};
    if (stops) {
      fake.faults.push_back(
          {.call = "cudaGraphLaunch", .nth = 1 + static_cast<int>(seed / 8 % 2), .signal = SIGTERM});
    }
    fake_cuda::Reset(fake);
    testing::ExpectSame(RunOn(make, config, stops), stops ? WithoutEvaluation(expected) : expected);
    EXPECT_GT(fake_cuda::Calls().at("cudaGraphLaunch"), 0) << "nothing was recorded";
  }
  std::filesystem::remove(options.plan_cache);
}

// Where the tuner has no memory for the operands of a whole batch, the micro-batch is halved.
TEST(FakeCudaRows, AreHalvedWhereTheTunerHasNoMemory) {
  RunConfig config = testing::ShortRun("nin-cifar", DType::kBf16);
  const Outcome halves = RunOn(testing::MakeHostCudaDevice, config);
  config.micro_batch = 0;
  const Outcome whole = RunOn(testing::MakeHostCudaDevice, config);
  ASSERT_NE(halves.files, whole.files);
  for (const int nth : {1, 3, 7}) {
    SCOPED_TRACE(nth);
    fake_cuda::Reset({.seed = 1, .faults = {{"cudaMalloc", nth, cudaErrorMemoryAllocation}}});
    const auto make = [] { return MakeCudaDevice({.deterministic = true, .plan_cache = {}}).value(); };
    testing::ExpectSame(RunOn(make, config), halves);
  }
  fake_cuda::Reset({});
}

INSTANTIATE_TEST_SUITE_P(, FakeCudaTraining,
                         ::testing::Values(Case{"nin-cifar", DType::kF32}, Case{"nin-cifar", DType::kBf16},
                                           Case{"googlenet", DType::kF32}, Case{"googlenet", DType::kBf16},
                                           Case{"googlenet", DType::kBf16, 2, true},
                                           Case{"nin-cifar", DType::kBf16, 4},
                                           Case{"nin-cifar", DType::kBf16, 1}),
                         [](const auto& test) {
                           std::string name = test.param.model + "_" + NameOf(test.param.precision);
                           if (test.param.micro_batch == 4) name += "_whole";
                           if (test.param.micro_batch == 1) name += "_singles";
                           if (test.param.lars) name += "_lars";
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace deeper
