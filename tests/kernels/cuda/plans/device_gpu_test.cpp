// What cuDNN says about the GPU, for tests/kernels/cuda/devices.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "kernels/cuda/plans/cudnn.h"
#include "tests/kernels/test_device.h"

namespace deeper {
namespace {

// Writes it to $DEEPER_DEVICE_JSON, if set.
TEST(CudnnOnGpuTest, DescribesTheGpu) {
  ASSERT_EQ(testing::TestDevice().type(), DeviceType::kCuda);
  const auto properties = cudnn::DeviceProperties();
  ASSERT_TRUE(properties.ok()) << properties.status();
  EXPECT_EQ(properties->substr(0, 1), "{");
  const char* const file = std::getenv("DEEPER_DEVICE_JSON");
  if (file != nullptr) {
    EXPECT_TRUE(std::ofstream(file) << *properties) << file;
  }
}

}  // namespace
}  // namespace deeper
