// Short trainings on fake GPUs, and everything of them that is the same on every device.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/base/device.h"
#include "trainer/run/train.h"

namespace deeper::testing {

// Numbers of the steps and evaluations of a run, and its checkpoints.
struct Outcome {
  std::vector<std::string> numbers;
  std::map<std::string, std::string> files;
};

inline std::string ReadBytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::vector<std::string> NumbersOf(const std::string& metrics) {
  std::vector<std::string> numbers;
  std::istringstream lines(metrics);
  for (std::string line; std::getline(lines, line);) {
    const auto event = nlohmann::json::parse(line);
    if (event["event"] != "step" && event["event"] != "eval") continue;
    for (const auto& [name, value] : event.items()) {
      if (name.starts_with("loss") || name.starts_with("top") || name == "samples" || name == "count")
        numbers.push_back(event["event"].get<std::string>() + " " + event["step"].dump() + " " + name + " " +
                          value.dump());
    }
  }
  return numbers;
}

// Three steps of two micro-batches, with a checkpoint and an evaluation after the second and the last.
inline RunConfig ShortRun(const std::string& model, DType precision) {
  RunConfig config;
  config.model = model;
  const bool googlenet = model.starts_with("googlenet");
  config.image_size = googlenet ? 8 : 10;
  config.stem = googlenet ? Stem::kSmall : Stem::kDefault;
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
  config.checkpoint_every = config.eval_every = 2;
  config.log_every = 1;
  config.watchdog_seconds = 0;
  config.deterministic = Determinism::kTrue;
  return config;
}

// Where a run writes "metrics" and "checkpoints".
class RunDirectory {
 public:
  RunDirectory() {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directory(path_);
  }
  RunDirectory(const RunDirectory&) = delete;
  ~RunDirectory() { std::filesystem::remove_all(path_); }

  const std::filesystem::path& path() const { return path_; }
  Outcome Read() const {
    Outcome outcome = {NumbersOf(ReadBytes(path_ / "metrics")), {}};
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path_ / "checkpoints")) {
      if (entry.path().extension() == ".h5")
        outcome.files[std::filesystem::relative(entry.path(), path_)] = ReadBytes(entry.path());
    }
    return outcome;
  }

 private:
  const std::filesystem::path path_ =
      std::filesystem::path(::testing::TempDir()) / ("run_" + std::to_string(getpid()));
};

inline void ExpectSame(const Outcome& actual, const Outcome& expected) {
  EXPECT_EQ(actual.numbers, expected.numbers);
  for (const auto& [name, bytes] : expected.files) {
    ASSERT_TRUE(actual.files.contains(name)) << name;
    EXPECT_TRUE(actual.files.at(name) == bytes) << name << " differs";
  }
}

}  // namespace deeper::testing
