#include "trainer/run/train.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "kernels/base/exit_code.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/run/train_setup.h"

namespace deeper {
namespace {

using ::testing::HasSubstr;

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

TEST(Train, RefusesTheStateOfAnotherOptimizerWithTheExitCodeOfCheckpoints) {
  const std::string directory = ::testing::TempDir() + "another_optimizer";
  std::filesystem::remove_all(directory);
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
  config.checkpoint_dir = directory;
  ASSERT_EQ(Train(config, *comm, *device, nullptr), absl::OkStatus());

  const std::string step = StepDirectory(directory, 1);
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
