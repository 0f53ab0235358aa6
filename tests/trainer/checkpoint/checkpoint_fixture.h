// Shared by tests of checkpoints: a directory, a store of parameters, and ranks that are threads.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/comm/threads_communicator.h"
#include "tests/trainer/checkpoint/example_params.h"
#include "tests/trainer/checkpoint/save_checkpoint.h"
#include "trainer/checkpoint/checkpoint_saver.h"

namespace deeper {

namespace fs = std::filesystem;

inline std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

// Runs the body once as each of `ranks` ranks.
inline void OnRanks(int ranks, const std::function<void(Communicator&)>& body) {
  const auto comms = MakeThreadCommunicators(ranks);
  std::vector<std::thread> threads;
  for (const auto& comm : comms) threads.emplace_back([&body, &comm] { body(*comm); });
  for (std::thread& thread : threads) thread.join();
}

inline std::string ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void WriteBytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

inline TrainState ExampleState(int64_t step) {
  return {step,
          {.dataset_uuid = "c0ffee",
           .seed = 0xFEDCBA9876543210u,
           .global_batch = 32,
           .order = "full",
           .epoch = 2,
           .batch = 17,
           .samples_trained = 12345},
          {{"model", "nin-cifar"}, {"num_classes", 10}, {"dropout", true}}};
}

// The problems of a step directory, or of those in a directory of checkpoints.
inline std::vector<std::string> VerifyCheckpoint(const std::string& path) {
  const absl::StatusOr<std::vector<CheckpointInfo>> checkpoints = ListCheckpoints(path);
  if (!checkpoints.ok()) return {Message(checkpoints.status())};
  std::vector<std::string> problems;
  for (const CheckpointInfo& info : *checkpoints)
    problems.insert(problems.end(), info.problems.begin(), info.problems.end());
  return problems;
}

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest()
      : directory_(::testing::TempDir() + "checkpoint_" + std::to_string(getpid()) + "_" +
                   ::testing::UnitTest::GetInstance()->current_test_info()->name()) {
    fs::remove_all(directory_);
    params_.Fill(1);
  }
  ~CheckpointTest() override { fs::remove_all(directory_); }

  absl::Status Save(int64_t step, const Retention& retention = {}) {
    return SaveCheckpoint(directory_, ExampleState(step), params_.store(), *single_, retention);
  }
  absl::StatusOr<LoadedState> Load(int64_t step, const TrainState& expected = ExampleState(0),
                                   Match match = Match::kExact) {
    return LoadCheckpoint(StepDirectory(directory_, step), expected, match, params_.store(), *single_);
  }
  absl::StatusOr<CheckpointChoice> Choose(const std::string& resume) {
    return ChooseCheckpoint(directory_, resume, *single_);
  }
  std::string Shard(int64_t step) const { return StepDirectory(directory_, step) + "/" + ShardName(0, 1); }
  std::vector<std::string> Listing() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory_)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  // In place: on some file systems, a new file has to wait for the disk.
  static void FlipBit(const std::string& path, uint64_t bit) {
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekg(static_cast<std::streamoff>(bit / 8));
    const int byte = file.get() ^ (1 << (bit % 8));
    file.seekp(static_cast<std::streamoff>(bit / 8));
    file.put(static_cast<char>(byte));
    ASSERT_TRUE(file.flush());
  }
  // Damages one byte in the middle of a file.
  static void Damage(const std::string& path) {
    std::string bytes = ReadBytes(path);
    bytes[bytes.size() / 2] ^= 1;
    WriteBytes(path, bytes);
  }

  std::string directory_;
  std::unique_ptr<Communicator> single_ = MakeSingleCommunicator();
  ExampleParams params_;
};

}  // namespace deeper
