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
#include "trainer/checkpoint/checkpoint_tools.h"

namespace deeper {
namespace {

// The outcome of rank 0. All ranks share the directory of checkpoints. With `together`, it has only the last
// one, written again as a single shard.
testing::Outcome RunOnRanks(int size, fake_cuda::Options options, Transport transport,
                            const RunConfig& wanted, bool together = false) {
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
  if (together) {
    const std::filesystem::path checkpoints = directory.path() / "checkpoints";
    EXPECT_EQ(ReshardCheckpoint(checkpoints, 1, directory.path() / "one"), absl::OkStatus());
    std::filesystem::remove_all(checkpoints);
    std::filesystem::rename(directory.path() / "one", checkpoints);
  }
  return directory.Read();
}

double FirstLoss(const testing::Outcome& outcome) {
  const std::string& first = outcome.numbers.at(1);
  return std::stod(first.substr(first.rfind(' ')));
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

// The same bits on every number of ranks, over NCCL and through the host. With 8 slices, a rank alone has
// several micro-batches between the first and the last, whose sums take different work.
TEST_P(FakeNcclTraining, ElasticIsTheSameOnAnyNumberOfRanks) {
  RunConfig config = testing::ShortRun("nin-cifar", DType::kBf16);
  config.deterministic = Determinism::kElastic;
  config.global_batch = 8;
  config.elastic_slices = 8;
  config.micro_batch = 0;
  const testing::Outcome expected = RunOnRanks(1, {}, Transport::kMpi, config, /*together=*/true);
  ASSERT_EQ(expected.files.size(), 1u);
  for (const Transport transport : {Transport::kNccl, Transport::kMpi}) {
    if (GetParam() == 1 && transport == Transport::kNccl) continue;
    SCOPED_TRACE(NameOf(transport));
    testing::ExpectSame(RunOnRanks(GetParam(), {.seed = 1}, transport, config, /*together=*/true), expected);
  }
}

TEST(FakeNcclElastic, NeedsTheSameGpuOnAllRanks) {
  RunConfig config = testing::ShortRun("nin-cifar", DType::kBf16);
  config.deterministic = Determinism::kElastic;
  config.elastic_slices = 4;
  config.micro_batch = 0;
  config.device = DeviceType::kCuda;
  fake_cuda::Reset({.devices = 2, .unlike = true});
  const auto comms = MakeThreadCommunicators(2);
  std::vector<std::jthread> threads;
  for (const auto& comm : comms) {
    threads.emplace_back([&] {
      const auto device = OpenGpuOf(*comm);
      ASSERT_TRUE(device.ok()) << device.status();
      const std::string said(Train(config, *comm, **device, nullptr).message());
      EXPECT_NE(said.find("--deterministic=elastic: this rank computes on Fake GPU 1"), std::string::npos)
          << said;
    });
  }
}

// Batches of 4 and of 2 images per rank: two micro-batches, then one, on both buffers of images, so that each
// recording runs three times: directly, captured, replayed. The sums through host memory are not recorded
// with --sync_bn.
TEST_P(FakeNcclTraining, ReplaysAreTheSameBits) {
  for (const char* const kind : {"plain", "sharded LARS", "averages"}) {
    SCOPED_TRACE(kind);
    RunConfig config = testing::ShortRun("nin-cifar-bn", DType::kBf16);
    config.sync_bn = true;
    config.synthetic_samples = 6 * GetParam();
    config.global_batch = 4 * GetParam();
    config.max_steps = 13;
    config.checkpoint_every = config.eval_every = 5;
    config.lr_schedule = ScheduleKind::kLinear;  // another rate in every step
    if (kind == std::string("sharded LARS")) {
      config.shard_optimizer = true;
      config.optimizer = "lars";
    }
    if (kind == std::string("averages")) config.ema_decay = 0.9;
    const testing::Outcome expected = RunOnRanks(GetParam(), {}, Transport::kMpi, config);
    const Transport transport = GetParam() == 1 ? Transport::kAuto : Transport::kNccl;
    testing::ExpectSame(RunOnRanks(GetParam(), {.seed = 1}, transport, config), expected);
    EXPECT_GT(fake_cuda::Calls().at("cudaGraphLaunch"), 0) << "nothing was recorded";
  }
}

// Each rank keeps a slice of the momentum. The weights, and the checkpoints, are those of ranks that keep it
// whole.
TEST_P(FakeNcclTraining, ShardedOptimizersChangeNothing) {
  RunConfig config = testing::ShortRun("nin-cifar", DType::kBf16);
  const testing::Outcome expected = RunOnRanks(GetParam(), {}, Transport::kMpi, config);
  config.shard_optimizer = true;
  for (const Transport transport : {Transport::kNccl, Transport::kMpi}) {
    if (GetParam() == 1 && transport == Transport::kNccl) continue;
    SCOPED_TRACE(NameOf(transport));
    testing::ExpectSame(RunOnRanks(GetParam(), {.seed = 1}, transport, config), expected);
  }
}

// Statistics of batch norm over the rows of all ranks: the same bits over NCCL, in recorded steps, and
// through the host; and, up to rounding, the losses of one rank with all rows in one pass.
TEST_P(FakeNcclTraining, SynchronizedBatchNorm) {
  RunConfig config = testing::ShortRun("nin-cifar-bn", DType::kF32);
  config.sync_bn = true;
  config.global_batch = config.micro_batch = 8;
  const testing::Outcome expected = RunOnRanks(GetParam(), {}, Transport::kMpi, config);
  if (GetParam() > 1)
    testing::ExpectSame(RunOnRanks(GetParam(), {.seed = 1}, Transport::kNccl, config), expected);
  const testing::Outcome alone = RunOnRanks(1, {}, Transport::kMpi, config);
  EXPECT_NEAR(FirstLoss(expected), FirstLoss(alone), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Ranks, FakeNcclTraining, ::testing::Values(1, 2, 4));

}  // namespace
}  // namespace deeper
