#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <cstdint>
#include <limits>

#include "kernels/base/device.h"

namespace deeper {
namespace {

using ::testing::HasSubstr;

class CpuDeviceTest : public ::testing::Test {
 protected:
  void TearDown() override { omp_set_num_threads(threads_); }
  const int threads_ = omp_get_max_threads();
};

TEST_F(CpuDeviceTest, SetsAndDescribesItsThreads) {
  EXPECT_THAT(MakeCpuDevice(3)->Describe(), HasSubstr(", 3 threads, "));
  EXPECT_EQ(omp_get_max_threads(), 3);
  EXPECT_THAT(MakeCpuDevice(1)->Describe(), HasSubstr(", 1 thread, "));
  EXPECT_EQ(omp_get_max_threads(), 1);
  MakeCpuDevice();
  EXPECT_GE(omp_get_max_threads(), 1);
  EXPECT_LE(omp_get_max_threads(), omp_get_num_procs());
}

TEST_F(CpuDeviceTest, AllocatesZeroedMemory) {
  const auto device = MakeCpuDevice(1);
  for (const size_t bytes : {size_t{1}, size_t{4096}, (size_t{5} << 20) + 7}) {
    const Buffer buffer = device->Allocate(bytes);
    ASSERT_EQ(buffer.bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
    for (size_t i = 0; i < bytes; i += 511) ASSERT_EQ(buffer.data()[i], std::byte{0});
    buffer.data()[bytes - 1] = std::byte{1};
  }
  EXPECT_EQ(device->Allocate(size_t{1} << 60).data(), nullptr) << "more than any machine has";
}

TEST_F(CpuDeviceTest, KnowsItsMemory) {
  const size_t available = MakeCpuDevice(1)->AvailableBytes();
  EXPECT_GT(available, size_t{1} << 20);
  EXPECT_LT(available, size_t{1} << 50);
}

TEST_F(CpuDeviceTest, FeatureMapsAreBlocked) {
  const auto device = MakeCpuDevice(1);
  const int64_t block = device->channel_block();
  EXPECT_TRUE(block == 8 || block == 16) << block;
  EXPECT_EQ(device->FeatureMap({1, 3, 2, 2}, DType::kF32),
            (TensorDesc{{1, 3, 2, 2}, DType::kF32, Layout::kBlocked, block}));
}

}  // namespace
}  // namespace deeper
