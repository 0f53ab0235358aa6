// NCCL on one GPU: it is found, starts and ends, and its collectives are recorded where they are called.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "comm/nccl/nccl_communicator.h"
#include "kernels/ops/arrays/arrays.h"
#include "tests/kernels/test_device.h"

namespace deeper {
namespace {

TEST(NcclOnGpu, CollectivesOfOneRankAreRecorded) {
  if (const auto nccl = LoadNccl(); !nccl.ok()) GTEST_SKIP() << nccl.status().message();
  Device& device = testing::TestDevice();
  constexpr int64_t kCount = 1 << 20;
  testing::DeviceArray<float> data(kCount, device);
  const auto single = MakeSingleCommunicator();
  const auto nccl = MakeNcclCommunicator(*single, device);
  nccl->Register(data.data(), kCount * sizeof(float));
  const auto recording = device.MakeRecording();
  for (int run = 0; run < 4; ++run) {  // runs, is recorded and replayed, is replayed
    data.Write(std::vector<float>(kCount, static_cast<float>(run)));
    recording->Run([&] {
      Scale(device, 2, data.data(), kCount);
      Request sum = nccl->AllReduce(data.data(), kCount, CommType::kF32, ReduceOp::kSum, device.stream());
      sum.Wait();
      Scale(device, 3, data.data(), kCount);
    });
    EXPECT_EQ(data.Read(), std::vector<float>(kCount, static_cast<float>(6 * run)));
  }
}

}  // namespace
}  // namespace deeper
