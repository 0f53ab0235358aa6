// Compares our pooled convolution with pooling followed by our plain one, on a GPU.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cstring>
#include <iterator>
#include <random>
#include <vector>

#include "kernels/cuda/tensor_core/conv_kernels.h"
#include "kernels/cuda/tensor_core/conv_pool_tiling.h"
#include "kernels/cuda/tensor_core/conv_tensor_core.h"
#include "tests/kernels/test_device.h"

namespace deeper {
namespace {

using testing::DeviceArray;
using testing::TestDevice;

template <class T>
std::vector<T> Random(size_t bytes) {
  static std::minstd_rand generator;
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<T> numbers(bytes / sizeof(T));
  for (T& number : numbers) number = FromFloat<T>(uniform(generator));
  return numbers;
}

// Finds the maxima on the host and runs the plain kernel: the same products in the same order.
TEST(PooledOnGpuTest, IsPoolingThenConvolution) {
  const conv::Gemm pooled = tensor_core::GemmOf({.n = 3, .h = 14, .w = 14, .c = 144, .k = 64});
  conv::Gemm sliced = pooled;
  sliced.in_pitch = 160;
  const auto stream = static_cast<cudaStream_t>(TestDevice().stream().native);
  const auto count = [](int64_t n) { return static_cast<size_t>(n); };
  const std::vector<bf16> x = Random<bf16>(sizeof(bf16) * count(sliced.pixels() * sliced.in_pitch));
  std::vector<bf16> maxima;
  std::vector<uint8_t> positions;
  for (int index = 0; index < sliced.pixels(); ++index) {
    for (int channel = 0; channel < sliced.depth; channel += conv::kChunk) {
      const Maxima chunk = conv::PoolChunk(sliced, x.data(), conv::SourceAt(sliced, index), channel);
      const auto values = std::bit_cast<std::array<bf16, conv::kChunk>>(chunk.values);
      const auto places = std::bit_cast<std::array<uint8_t, conv::kChunk>>(chunk.positions);
      maxima.insert(maxima.end(), std::begin(values), std::end(values));
      positions.insert(positions.end(), places.begin(), places.end());
    }
  }
  const DeviceArray<bf16> in(x, TestDevice()), pooled_in(maxima, TestDevice()),
      weights(Random<bf16>(sizeof(bf16) * count(pooled.depth * pooled.columns)), TestDevice()),
      expected(count(pooled.pixels() * pooled.columns), TestDevice()),
      y(expected.Read().size(), TestDevice());
  const DeviceArray<uint8_t> found(positions.size(), TestDevice());
  for (const int tile_columns : {64, 128}) {
    SCOPED_TRACE(tile_columns);
    conv::Arguments plain = {pooled, pooled_in.data(), weights.data(), {}},
                    fused = {sliced, in.data(), weights.data(), {}};
    plain.epilogue.out = expected.data();
    fused.epilogue.out = y.data();
    ASSERT_EQ(conv::LaunchSm80(tile_columns, plain, stream), cudaSuccess);
    fused.positions = found.data();
    ASSERT_EQ(conv::LaunchPooledSm80(tile_columns, fused, stream), cudaSuccess);
    const std::vector<bf16> y_read = y.Read(), expected_read = expected.Read();
    EXPECT_EQ(std::memcmp(y_read.data(), expected_read.data(), sizeof(bf16) * y_read.size()), 0);
    EXPECT_EQ(found.Read(), positions);
  }
}

}  // namespace
}  // namespace deeper
