#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <cstdint>
#include <limits>

#include "kernels/base/device.h"

namespace deeper {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class CpuDeviceTest : public ::testing::Test {
 protected:
  void TearDown() override { omp_set_num_threads(threads_); }
  const int threads_ = omp_get_max_threads();
};

TEST_F(CpuDeviceTest, SetsAndDescribesItsThreads) {
  EXPECT_THAT(MakeCpuDevice(3)->Describe(), HasSubstr(", 3 threads, "));
  EXPECT_THAT(MakeCpuDevice(3)->Describe(), Not(HasSubstr("unknown"))) << "the instruction set";
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

TEST_F(CpuDeviceTest, LayoutOfFeatureMapsAndImages) {
  constexpr Shape kShape = {1, 3, 2, 2};
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    const auto blocked = MakeCpuDevice(1, CpuLayout::kBlocked);
    const int64_t block = blocked->channel_block(dtype);
    EXPECT_TRUE(block == 8 || block == 16) << block;
    EXPECT_EQ(blocked->FeatureMap(kShape, dtype), (TensorDesc{kShape, dtype, Layout::kBlocked, block}));
    EXPECT_EQ(blocked->Images(kShape, dtype), (TensorDesc{kShape, dtype, Layout::kNchw}));
    const auto nhwc = MakeCpuDevice(1, CpuLayout::kNhwc);
    EXPECT_EQ(nhwc->FeatureMap(kShape, dtype), (TensorDesc{kShape, dtype, Layout::kNhwc}));
    EXPECT_EQ(nhwc->Images(kShape, dtype), (TensorDesc{kShape, dtype, Layout::kNhwc}));
  }
  const auto automatic = MakeCpuDevice(1);
  EXPECT_EQ(automatic->FeatureMap(kShape, DType::kF32).layout, Layout::kBlocked);
}

}  // namespace
}  // namespace deeper
