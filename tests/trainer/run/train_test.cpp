#include "trainer/run/train.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "kernels/base/exit_code.h"
#include "tests/comm/threads_communicator.h"
#include "tests/data/scratch.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/checkpoint/weights_file.h"
#include "trainer/run/train_setup.h"

namespace deeper {
namespace {

using ::testing::FloatNear;
using ::testing::HasSubstr;
using ::testing::Pointwise;

TEST(SmallestPass, IsTheLeastThatBatchNormSees) {
  EXPECT_EQ(SmallestPass(24, 24, 1, false), 24);
  EXPECT_EQ(SmallestPass(1, 24, 1, false), 1);
  EXPECT_EQ(SmallestPass(5, 4, 1, false), 2) << "passes of 2 and 3";
  EXPECT_EQ(SmallestPass(5, 1, 1, true), 1);
  EXPECT_EQ(SmallestPass(5, 3, 2, false), 2) << "shares of 2 and 3";
  EXPECT_EQ(SmallestPass(7, 3, 2, false), 1) << "two passes of a share of 3";
  EXPECT_EQ(SmallestPass(7, 3, 2, true), 3);
  EXPECT_EQ(SmallestPass(2, 3, 4, false), 1) << "two ranks have none";
  EXPECT_EQ(SmallestPass(2, 3, 4, true), 2);
}

// A CPU with this much memory.
class SmallMachine final : public Device {
 public:
  explicit SmallMachine(size_t bytes) : bytes_(bytes) {}
  DeviceType type() const override { return cpu_->type(); }
  std::string Describe() const override { return cpu_->Describe(); }
  int64_t channel_block(DType type) const override { return cpu_->channel_block(type); }
  Buffer Allocate(size_t bytes) override { return cpu_->Allocate(bytes); }
  size_t AvailableBytes() const override { return bytes_; }
  Stream stream() const override { return cpu_->stream(); }
  void Synchronize() override { cpu_->Synchronize(); }
  void Copy(void* to, const void* from, size_t bytes) override { cpu_->Copy(to, from, bytes); }

 private:
  const size_t bytes_;
  const std::unique_ptr<Device> cpu_ = MakeCpuDevice(1);
};

TEST(TrainSetup, RanksWithDifferentMemoryHaveTheSameMicroBatch) {
  RunConfig config;
  config.model = "nin-cifar";
  config.synthetic = true;
  config.synthetic_samples = 64;
  config.num_classes = 4;
  config.image_size = 32;
  config.val_split = "none";
  config.global_batch = 32;
  config.max_steps = 1;
  auto comms = MakeThreadCommunicators(2);
  std::vector<int64_t> rows(2);
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      SmallMachine device(rank == 0 ? size_t{1} << 40 : size_t{4} << 20);
      TrainSetup setup(config, *comms[rank], device, nullptr);
      EXPECT_EQ(setup.Prepare(), absl::OkStatus());
      rows[rank] = setup.net->options().rows;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(rows[0], rows[1]);
  EXPECT_LT(rows[1], 16) << "the second machine is large enough for its share";
}

// The first batch normalisation has the same input with and without --sync_bn, so that the mean over two
// equal shares is the mean of the batch.
TEST(Train, SavedStatisticsAreTheMeanOfTheRanks) {
  RunConfig config;
  config.model = "nin-cifar-bn";
  config.synthetic = true;
  config.synthetic_samples = 16;
  config.num_classes = 4;
  config.image_size = 32;
  config.val_split = "none";
  config.global_batch = 8;
  config.max_steps = 1;
  config.watchdog_seconds = 0;
  const auto saved_means = [&](bool sync_bn) {
    config.sync_bn = sync_bn;
    const ScratchDir directory;
    config.checkpoint_dir = directory.path();
    auto comms = MakeThreadCommunicators(2);
    std::vector<std::thread> threads;
    for (auto& comm : comms) {
      threads.emplace_back([&] {
        const auto device = MakeCpuDevice(1);
        EXPECT_EQ(Train(config, *comm, *device, nullptr), absl::OkStatus());
      });
    }
    for (std::thread& thread : threads) thread.join();
    const Weights weights = *ReadWeights(StepDirectory(config.checkpoint_dir, 1), Average::kNo);
    const auto mean = std::ranges::find(weights.tensors, "mlpconv1.0.bn.running_mean", &TensorEntry::name);
    const auto first = weights.values.begin() + mean->first;
    return std::vector<float>(first, first + mean->count);
  };
  EXPECT_THAT(saved_means(false), Pointwise(FloatNear(1e-6f), saved_means(true)));
}

TEST(Train, RefusesTheStateOfAnotherOptimizerWithTheExitCodeOfCheckpoints) {
  const ScratchDir directory;
  const auto device = MakeCpuDevice(1);
  const auto comm = MakeSingleCommunicator();
  RunConfig config;
  config.model = "nin-cifar";
  config.synthetic = true;
  config.synthetic_samples = 8;
  config.num_classes = 4;
  config.image_size = 32;
  config.val_split = "none";
  config.global_batch = 2;
  config.max_steps = 1;
  config.watchdog_seconds = 0;
  config.checkpoint_dir = directory.path();
  ASSERT_EQ(Train(config, *comm, *device, nullptr), absl::OkStatus());

  const std::string step = StepDirectory(directory.path(), 1);
  CheckpointManifest manifest = *ReadCheckpointManifest(step);
  for (TensorEntry& tensor : manifest.tensors)
    if (tensor.is_optimizer_state()) tensor.role = "adam_m";
  std::ofstream(CheckpointManifestPath(step)) << RenderCheckpointManifest(manifest);
  config.max_steps = 2;
  const absl::Status status = Train(config, *comm, *device, nullptr);
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kCheckpoint);
  EXPECT_THAT(std::string(status.message()), HasSubstr("it contains adam_m, and this run needs momentum"));
}

}  // namespace
}  // namespace deeper
