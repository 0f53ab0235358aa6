// Whole runs on the GPU device over the fake CUDA: the bits of the CUDA ops on the host, whatever the order
// in which streams get on. $DEEPER_FAKE_CUDA_SEEDS is how many orders (default 8).
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/base/device.h"
#include "tests/kernels/fake_cuda/fake_cuda.h"
#include "tests/kernels/test_device.h"
#include "trainer/run/train.h"

namespace deeper {
namespace {

namespace fs = std::filesystem;

// Everything of a run that is the same on every device: numbers of its steps and evaluations, and its
// checkpoints.
struct Outcome {
  std::vector<std::string> numbers;
  std::map<std::string, std::string> files;
};

std::string ReadBytes(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> NumbersOf(const std::string& metrics) {
  std::vector<std::string> numbers;
  std::istringstream lines(metrics);
  for (std::string line; std::getline(lines, line);) {
    const auto event = nlohmann::json::parse(line);
    if (event["event"] != "step" && event["event"] != "eval") continue;
    for (const auto& [name, value] : event.items()) {
      if (name.starts_with("loss") || name.starts_with("top") || name == "samples" || name == "count")
        numbers.push_back(event["event"].get<std::string>() + " " + name + " " + value.dump());
    }
  }
  return numbers;
}

// Three steps of two micro-batches, a checkpoint after each, an evaluation after the second and the last.
RunConfig Config(const std::string& model, DType precision) {
  RunConfig config;
  config.model = model;
  config.image_size = model == "googlenet" ? 8 : 10;
  config.stem = model == "googlenet" ? Stem::kSmall : Stem::kDefault;
  config.aux = false;
  config.precision = precision;
  config.num_classes = 5;
  config.synthetic = true;
  config.synthetic_samples = 8;
  config.global_batch = 4;
  config.micro_batch = 2;
  config.max_steps = 3;
  config.momentum = 0.9;
  config.augment = Augment::kInception;
  config.seed = 3;
  config.workers = 1;
  config.checkpoint_every = 1;
  config.eval_every = 2;
  config.log_every = 1;
  config.watchdog_seconds = 0;
  config.deterministic = Determinism::kTrue;
  return config;
}

Outcome RunOn(Device& device, RunConfig config) {
  const fs::path directory = fs::path(::testing::TempDir()) / ("fake_cuda_" + std::to_string(getpid()));
  fs::remove_all(directory);
  config.checkpoint_dir = directory / "checkpoints";
  config.metrics_out = directory / "metrics";
  fs::create_directory(directory);
  const auto comm = MakeSingleCommunicator();
  EXPECT_EQ(Train(config, *comm, device, nullptr), absl::OkStatus());
  Outcome outcome = {NumbersOf(ReadBytes(config.metrics_out)), {}};
  for (const auto& entry : fs::recursive_directory_iterator(config.checkpoint_dir)) {
    if (entry.path().extension() == ".h5")
      outcome.files[fs::relative(entry.path(), directory)] = ReadBytes(entry.path());
  }
  fs::remove_all(directory);
  return outcome;
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
  const RunConfig config = Config(model, precision);
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
    EXPECT_EQ(actual.numbers, expected.numbers);
    for (const auto& [name, bytes] : expected.files)
      EXPECT_TRUE(actual.files.at(name) == bytes) << name << " differs";
    EXPECT_GT(fake_cuda::Calls().at("cudaGraphLaunch"), 0) << "nothing was recorded";
    if (HasFailure()) break;
  }
  fs::remove(options.plan_cache);
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
