// GoogleTest's main for tests on a selectable device (test_device.h). Without that device, none of the tests
// counts as passed.
#include <gtest/gtest.h>

#include "tests/kernels/test_device.h"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (!GTEST_FLAG_GET(list_tests)) deeper::testing::TestDevice();
  return RUN_ALL_TESTS();
}
