#include "kernels/ops/arrays/arrays.h"

#include <limits>

#include "tests/kernels/ops/test_values.h"

namespace deeper {
namespace {

using testing::DeviceArray;
using testing::RandomValues;
using testing::Values;
using Limits = std::numeric_limits<float>;

bool Found(const Values& values) {
  Device& device = testing::TestDevice();
  const DeviceArray<float> x(values, device);
  const DeviceArray<uint32_t> found(std::vector<uint32_t>{7}, device);
  const DeviceArray<std::byte> workspace(FindNonFiniteWorkspaceBytes(device), device);
  FindNonFinite(device, x.data(), static_cast<int64_t>(values.size()), found.data(), workspace.data());
  EXPECT_LE(found.Read()[0], 1u);
  return found.Read()[0] != 0;
}

TEST(Finite, KnowsEveryKindOfNumber) {
  EXPECT_FALSE(Found({}));
  EXPECT_FALSE(Found({0.0f, -0.0f, Limits::max(), Limits::lowest(), Limits::min(), Limits::denorm_min()}));
  for (const float bad : {Limits::infinity(), -Limits::infinity(), Limits::quiet_NaN(), -Limits::quiet_NaN()})
    EXPECT_TRUE(Found({1.0f, bad})) << bad;
}

TEST(Finite, LooksAtEveryElement) {
  Values values = RandomValues(200001, 1);
  EXPECT_FALSE(Found(values));
  for (const size_t at : {0, 1, 31, 4095, 4096, 65536, 131071, 199999, 200000}) {
    const float good = std::exchange(values[at], Limits::quiet_NaN());
    EXPECT_TRUE(Found(values)) << at;
    values[at] = good;
  }
}

// Values before and after the range are ignored.
TEST(Finite, LooksAtNothingElse) {
  Device& device = testing::TestDevice();
  Values values = RandomValues(100, 2);
  values[31] = values[65] = Limits::infinity();
  const DeviceArray<float> x(values, device);
  const DeviceArray<uint32_t> found(1, device);
  const DeviceArray<std::byte> workspace(FindNonFiniteWorkspaceBytes(device), device);
  FindNonFinite(device, x.data() + 32, 33, found.data(), workspace.data());
  EXPECT_EQ(found.Read()[0], 0u);
}

TEST(Arrays, AddScaleAndRound) {
  Device& device = testing::TestDevice();
  const Values values = RandomValues(10001, 3);
  const auto count = static_cast<int64_t>(values.size());
  const DeviceArray<float> x(values, device), sum(Values(values.size(), 0.5f), device);
  const DeviceArray<bf16> narrow(values.size(), device);
  Accumulate(device, x.data(), sum.data(), count);
  Scale(device, 0.75f, x.data(), count);
  Narrow(device, x.data(), narrow.data(), count);
  const Values sums = sum.Read(), scaled = x.Read();
  const std::vector<bf16> rounded = narrow.Read();
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(sums[i], 0.5f + values[i]) << i;
    ASSERT_EQ(scaled[i], 0.75f * values[i]) << i;
    ASSERT_EQ(rounded[i].bits, ToBf16(scaled[i]).bits) << i;
  }
}

}  // namespace
}  // namespace deeper
