// GoogleTest's main for tests that run on a device of choice (test_device.h): where it is missing, none of
// them counts as passed.
#include <gtest/gtest.h>

#include "tests/kernels/test_device.h"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (!GTEST_FLAG_GET(list_tests)) deeper::testing::TestDevice();
  return RUN_ALL_TESTS();
}
