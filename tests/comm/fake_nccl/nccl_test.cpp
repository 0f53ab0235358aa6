// NcclCommunicator on the fake NCCL: recordings, order of streams, and what goes wrong.
#include <gtest/gtest.h>
#include <nccl.h>

#include <chrono>
#include <cstdlib>
#include <thread>
#include <vector>

#include "comm/nccl/device_communicator.h"
#include "kernels/ops/arrays/arrays.h"
#include "tests/comm/fake_nccl/fake_nccl.h"
#include "tests/comm/fake_nccl/gpu_ranks.h"
#include "tests/kernels/test_device.h"

namespace deeper {
namespace {

using testing::DeviceArray;

constexpr int64_t kCount = 1000;
constexpr uint64_t kSeeds = 12;

void Sum(GpuRank& rank, const DeviceArray<float>& data, size_t count = kCount) {
  rank.nccl->AllReduce(data.data(), count, CommType::kF32, ReduceOp::kSum, rank.device->stream()).Wait();
}

// Work before a collective is seen by it, and work after it sees its result, also in replayed recordings.
TEST(FakeNccl, CollectivesAreRecordedWhereTheyAreCalled) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(seed);
    OnGpuRanks(2, {.seed = seed}, [&](GpuRank& rank) {
      DeviceArray<float> data(kCount, *rank.device);
      rank.nccl->Register(data.data(), kCount * sizeof(float));
      const auto recording = rank.device->MakeRecording();
      for (int run = 1; run < 5; ++run) {
        data.Write(std::vector<float>(kCount, static_cast<float>(run * (rank.host.rank() + 1))));
        recording->Run([&] {
          Scale(*rank.device, 2, data.data(), kCount);
          Sum(rank, data);
          Scale(*rank.device, 3, data.data(), kCount);
        });
        EXPECT_EQ(data.Read(), std::vector<float>(kCount, static_cast<float>(18 * run))) << run;
      }
    });
    EXPECT_GT(fake_cuda::Calls().at("cudaGraphLaunch"), 0);
  }
}

TEST(FakeNccl, IsChosenWhereEveryRankHasAGpu) {
  fake_cuda::Reset({.devices = 2});
  const auto comms = MakeThreadCommunicators(2);
  std::vector<std::jthread> threads;
  for (const auto& comm : comms) {
    threads.emplace_back([&] {
      const auto device = *OpenGpuOf(*comm);
      const auto made = MakeDeviceCommunicator(*comm, *device, Transport::kAuto);
      ASSERT_TRUE(made.ok()) << made.status();
      EXPECT_EQ(made->comm->name(), "nccl");
      EXPECT_TRUE(made->comm->recordable());
      EXPECT_EQ(made->description, "NCCL of the fake (every rank has its own GPU)");
      EXPECT_EQ(made->ranks_on_device, 1);
    });
  }
}

// The thread that looks for errors and the one that trains must not meet in a communicator.
TEST(FakeNccl, OneThreadAtATimeCallsNccl) {
  fake_nccl::SlowCalls(250);  // longer than the poller sleeps
  OnGpuRanks(2, {}, [&](GpuRank& rank) {
    DeviceArray<float> data(kCount, *rank.device);
    for (int i = 0; i < 12; ++i) Sum(rank, data);
  });
  fake_nccl::SlowCalls(0);
}

TEST(FakeNcclDeathTest, RanksThatDisagreeAreFound) {
  EXPECT_DEATH(OnGpuRanks(2, {},
                          [](GpuRank& rank) {
                            DeviceArray<float> data(kCount, *rank.device);
                            Sum(rank, data, rank.host.rank() == 0 ? 10 : 20);
                            rank.device->Synchronize();
                          }),
               "NCCL: rank 0 calls ncclAllReduce of 10 elements .* where rank 1 calls ncclAllReduce of 20");
}

TEST(FakeNcclDeathTest, ARankThatDoesNotComeIsFound) {
  EXPECT_DEATH(OnGpuRanks(3, {.patience_seconds = 10},
                          [](GpuRank& rank) {
                            DeviceArray<float> data(kCount, *rank.device);
                            Sum(rank, data);
                            if (rank.host.rank() != 1) Sum(rank, data);
                            rank.device->Synchronize();
                            std::this_thread::sleep_for(std::chrono::hours(1));
                          }),
               "NCCL: ncclAllReduce of 1000 elements .* waits for ranks 1");
}

TEST(FakeNcclDeathTest, HostMemoryIsRefused) {
  EXPECT_DEATH(OnGpuRanks(1, {},
                          [](GpuRank& rank) {
                            std::vector<float> data(5);
                            rank.nccl->AllReduce(data.data(), 5, CommType::kF32, ReduceOp::kSum,
                                                 rank.device->stream());
                          }),
               "NCCL: ncclAllReduce of memory of the host");
}

// Of each function: its call fails, with the job's exit code and one line that names the call, rank and GPU.
TEST(FakeNcclDeathTest, EveryCallThatFailsEndsTheJob) {
  for (const char* call : {"ncclGetUniqueId", "ncclCommInitRankConfig", "ncclAllReduce", "ncclReduceScatter",
                           "ncclAllGather", "ncclBroadcast", "ncclCommFinalize"}) {
    SCOPED_TRACE(call);
    const fake_cuda::Fault fault = {
        .call = call, .nth = 1, .error = static_cast<cudaError_t>(ncclSystemError)};
    EXPECT_EXIT(
        OnGpuRanks(2, {.faults = {fault}},
                   [](GpuRank& rank) {
                     DeviceArray<float> data(kCount, *rank.device), more(2 * kCount, *rank.device);
                     const Stream stream = rank.device->stream();
                     const size_t bytes = kCount * sizeof(float);
                     Sum(rank, data);
                     rank.nccl->ReduceScatter(more.data(), data.data(), kCount, stream).Wait();
                     rank.nccl->AllGather(data.data(), more.data(), bytes, stream).Wait();
                     rank.nccl->Broadcast(data.data(), bytes, 1, stream).Wait();
                     rank.device->Synchronize();
                   }),
        ::testing::ExitedWithCode(kCommunicationExitCode),
        std::string("rank [01] of 2: ") + call + " failed on GPU FFFF:FF:0[01].0: an error of the fake");
  }
}

// While the host waits for the GPU, and no thread calls NCCL, it still learns of lost peers.
TEST(FakeNcclDeathTest, AnErrorThatShowsLaterEndsTheJob) {
  EXPECT_EXIT(OnGpuRanks(2, {},
                         [](GpuRank& rank) {
                           rank.host.Barrier();
                           fake_nccl::LosePeer();
                           std::this_thread::sleep_for(std::chrono::seconds(20));
                           std::_Exit(0);
                         }),
              ::testing::ExitedWithCode(kCommunicationExitCode),
              "a collective failed on GPU .*: remote process exited or there was a network error");
}

TEST(FakeNcclDeathTest, WhatNcclDoesNotHave) {
  EXPECT_DEATH(OnGpuRanks(2, {},
                          [](GpuRank& rank) {
                            DeviceArray<float> data(kCount, *rank.device);
                            rank.nccl = nullptr;
                            const auto plain = MakeNcclCommunicator(rank.host, *rank.device);
                            plain->AllReduce(data.data(), kCount, CommType::kF32, ReduceOp::kTreeSum, {});
                          }),
               "for communicators that are made for them");
  EXPECT_DEATH(OnGpuRanks(1, {}, [](GpuRank& rank) { rank.nccl->SumInBf16(nullptr, nullptr, 0, {}); }),
               "not over NCCL");
}

}  // namespace
}  // namespace deeper
