// Whole runs on 1, 2 and 4 fake GPUs over NcclCommunicator: the bits of those that sum through host memory.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "tests/comm/fake_nccl/gpu_ranks.h"
#include "tests/kernels/fake_cuda/run.h"

namespace deeper {
namespace {

// The outcome of rank 0. All ranks share the directory of checkpoints.
testing::Outcome RunOnRanks(int size, fake_cuda::Options options, Transport transport,
                            const RunConfig& wanted) {
  options.devices = size;
  fake_cuda::Reset(options);
  const testing::RunDirectory directory;
  const auto comms = MakeThreadCommunicators(size);
  std::vector<std::jthread> threads;
  for (const auto& comm : comms) {
    threads.emplace_back([&] {
      const auto device = OpenGpuOf(*comm);
      ASSERT_TRUE(device.ok()) << device.status();
      RunConfig config = wanted;
      config.device = DeviceType::kCuda;
      config.comm = transport;
      config.checkpoint_dir = directory.path() / "checkpoints";
      if (comm->rank() == 0) config.metrics_out = directory.path() / "metrics";
      EXPECT_EQ(Train(config, *comm, **device, nullptr), absl::OkStatus());
    });
  }
  threads.clear();  // joins
  return directory.Read();
}

class FakeNcclTraining : public ::testing::TestWithParam<int> {};

TEST_P(FakeNcclTraining, IsTheSameBitsAsThroughTheHost) {
  const int size = GetParam();
  RunConfig config = testing::ShortRun("nin-cifar", DType::kBf16);
  config.micro_batch = 1;  // so that ranks have micro-batches
  const testing::Outcome expected = RunOnRanks(size, {}, Transport::kMpi, config);
  ASSERT_EQ(expected.files.size(), 2u * static_cast<size_t>(size));
  for (const uint64_t seed : {0, 1, 3}) {
    SCOPED_TRACE(seed);
    const testing::Outcome actual =
        RunOnRanks(size, {.seed = seed}, size == 1 ? Transport::kAuto : Transport::kNccl, config);
    testing::ExpectSame(actual, expected);
    EXPECT_GT(fake_cuda::Calls().at("cudaGraphLaunch"), 0) << "nothing was recorded";
    if (size > 1) {
      EXPECT_GT(fake_cuda::Calls().at("ncclAllReduce"), 0);
    }
    if (HasFailure()) break;
  }
}

// The memory of one GPU is enough for more rows at a time than that of the other.
TEST(FakeNcclRows, AreThoseThatFitOnEveryRank) {
  RunConfig config = testing::ShortRun("nin-cifar", DType::kBf16);
  config.micro_batch = 1;
  const testing::Outcome expected = RunOnRanks(2, {}, Transport::kNccl, config);
  config.micro_batch = 0;
  const std::vector<size_t> free = {size_t{1} << 32, 1000};
  testing::ExpectSame(RunOnRanks(2, {.claimed_free = free}, Transport::kNccl, config), expected);
}

INSTANTIATE_TEST_SUITE_P(Ranks, FakeNcclTraining, ::testing::Values(1, 2, 4));

}  // namespace
}  // namespace deeper
