// Tests the index math and the loops of the tensor core convolutions in use, with emulated blocks. Only a GPU
// can test that barriers and instructions behave as described.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/plans/cuda_problem.h"
#include "kernels/cuda/tensor_core/conv_pool_tiling.h"
#include "kernels/cuda/tensor_core/conv_tensor_core.h"
#include "kernels/cuda/tensor_core/conv_tiling.h"
#include "tests/kernels/cuda/tensor_core/block_emulation.h"
#include "tests/kernels/cuda/tensor_core/conv_problem.h"
#include "tests/kernels/cuda/tensor_core/wgmma_emulation.h"
#include "tests/kernels/test_device.h"

namespace deeper::conv {
namespace {

using Pass = ConvolutionProblem::Pass;

bool SameBits(const std::vector<bf16>& a, const std::vector<bf16>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(bf16)) == 0;
}

// Runs every block of the kernel, and the naive convolution. The memory between slices is poisoned for
// reading and must not change.
void Check(const Kernel& kernel, const ConvolutionProblem& problem) {
  SCOPED_TRACE(ToString(problem));
  static const auto device = testing::MakeHostCudaDevice();
  Gemm g = tensor_core::GemmOf(problem);
  g.across = kernel.across;
  const OperandSizes sizes = SizesOf(problem);
  std::minstd_rand generator;
  std::vector<bf16> in = WholeNumbers(sizes.a / 2, generator), out(sizes.d / 2, bf16{kPoison});
  const std::vector<bf16> weights = WholeNumbers(sizes.b / 2, generator),
                          mask = WholeNumbers(sizes.mask / 2, generator);
  for (size_t i = 0; i < in.size(); ++i) {
    if (i % static_cast<size_t>(g.in_pitch) >= static_cast<size_t>(g.depth)) in[i] = {kPoison};
  }
  const std::vector<bf16> bias = WholeNumbers(static_cast<size_t>(g.columns), generator);
  std::vector<float> wide_bias;
  for (const bf16 b : bias) wide_bias.push_back(ToFloat(b) + 0.25f);

  std::vector<bf16> expected = out;
  std::vector<float> expected_sums(sizes.sums / sizeof(float)), sums = expected_sums;
  auto plan = AsCuda(*device).Plan(problem);
  ASSERT_TRUE(plan.ok()) << plan.status();
  (*plan)->Run({.a = in.data(),
                .b = weights.data(),
                .d = expected.data(),
                .bias = problem.wide_bias ? static_cast<const void*>(wide_bias.data()) : bias.data(),
                .mask = mask.data(),
                .sums = expected_sums.data()});

  std::vector<float> partial(static_cast<size_t>(g.pixel_tiles() * g.columns), -1e30f);
  Epilogue e;
  e.out = out.data();
  e.relu = problem.relu;
  if (problem.bias && problem.wide_bias) e.wide_bias = wide_bias.data();
  if (problem.bias && !problem.wide_bias) e.bias = bias.data();
  if (problem.mask_dx) {
    e.mask = mask.data();
    e.sums = partial.data();
  }
  const Operands operands = {ElementsOf(in), ElementsOf(weights)};
  for (int block = 0; block < Blocks(g, kernel.tile_columns); ++block) {
    (g.backward ? kernel.backward : kernel.forward)(g, operands, e, block);
  }
  EXPECT_TRUE(SameBits(out, expected));
  // The naive convolution adds before it rounds, the kernels add after rounding.
  std::fill(expected_sums.begin(), expected_sums.end(), 0.0f);
  for (size_t i = 0; i < sums.size(); ++i) {
    for (int tile = 0; tile < g.pixel_tiles(); ++tile) {
      sums[i] += partial[static_cast<size_t>(tile * g.columns) + i];
    }
    for (int pixel = 0; pixel < g.pixels(); ++pixel) {
      expected_sums[i] += ToFloat(expected[static_cast<size_t>(pixel * g.out_pitch) + i]);
    }
  }
  EXPECT_EQ(sums, expected_sums);
}

// The same with real numbers, against sums in double precision.
void CheckReals(const Kernel& kernel, const ConvolutionProblem& problem) {
  SCOPED_TRACE(ToString(problem));
  Gemm g = tensor_core::GemmOf(problem);
  g.across = kernel.across;
  const OperandSizes sizes = SizesOf(problem);
  std::minstd_rand generator;
  const auto draw = [&generator](size_t count) {
    std::uniform_real_distribution<float> uniform(-1, 1);
    std::vector<bf16> numbers(count);
    for (bf16& number : numbers) number = ToBf16(uniform(generator));
    return numbers;
  };
  const std::vector<bf16> in = draw(sizes.a / 2), weights = draw(sizes.b / 2);
  std::vector<bf16> out(sizes.d / 2);
  const Operands operands = {ElementsOf(in), ElementsOf(weights)};
  Epilogue e;
  e.out = out.data();
  for (int block = 0; block < Blocks(g, kernel.tile_columns); ++block) {
    (g.backward ? kernel.backward : kernel.forward)(g, operands, e, block);
  }
  for (int place = 0; place < g.pixels(); place += 7) {
    const int row = place / g.width % g.height, column = place % g.width;
    for (int k = place % 5; k < g.columns; k += 5) {
      double sum = 0, size = 0;
      for (int tap = 0; tap < g.taps(); ++tap) {
        const int down = tap / g.kernel - g.pad(), right = tap % g.kernel - g.pad();
        if (row + down < 0 || row + down >= g.height || column + right < 0 || column + right >= g.width)
          continue;
        for (int c = 0; c < g.depth; ++c) {
          const int64_t from = (int64_t{place} + down * g.width + right) * g.in_pitch + c;
          const int64_t weight = WeightIndex(g, g.backward ? g.taps() - 1 - tap : tap, k, c);
          const double product =
              double{ToFloat(in[static_cast<size_t>(from)])} * ToFloat(weights[static_cast<size_t>(weight)]);
          sum += product;
          size += std::abs(product);
        }
      }
      const double got = ToFloat(out[static_cast<size_t>(place * g.out_pitch + k)]);
      ASSERT_NEAR(got, sum, std::ldexp(std::abs(sum), -8) + std::ldexp(size, -18)) << place << ", " << k;
    }
  }
}

class ConvKernelTest : public ::testing::TestWithParam<Kernel> {};
INSTANTIATE_TEST_SUITE_P(, ConvKernelTest, ::testing::ValuesIn(Kernels()),
                         [](const auto& kernel) { return kernel.param.name; });

// Covers pixels in several tiles and images, columns in several tiles, depths from one slice to several
// steps.
const ConvolutionProblem kProblems[] = {
    Problem(Pass::kForward, 3, 7, 7, 16, 24, 3),    Problem(Pass::kForward, 2, 9, 6, 24, 72, 5),
    Problem(Pass::kForward, 1, 12, 13, 112, 40, 1), Problem(Pass::kForward, 1, 6, 5, 144, 200, 3),
    Problem(Pass::kForward, 131, 1, 1, 8, 8, 3),    Problem(Pass::kForward, 1, 3, 50, 64, 64, 3),
};

TEST_P(ConvKernelTest, Forward) {
  for (ConvolutionProblem problem : kProblems) {
    if (!CanRun(GetParam(), problem)) continue;
    Check(GetParam(), problem);
    problem.bias = problem.relu = true;
    Check(GetParam(), problem);
    problem.wide_bias = true;
    problem.x_pitch = problem.c + 8;
    problem.y_pitch = problem.k + 40;
    Check(GetParam(), problem);
  }
}

TEST_P(ConvKernelTest, BackwardData) {
  for (ConvolutionProblem problem : kProblems) {
    problem.pass = Pass::kBackwardData;
    if (!CanRun(GetParam(), problem)) continue;
    Check(GetParam(), problem);
    problem.mask_dx = true;
    Check(GetParam(), problem);
    problem.x_pitch = problem.c + 8;
    problem.y_pitch = problem.k + 40;
    problem.mask_pitch = problem.c + 16;
    Check(GetParam(), problem);
  }
}

// The sum of fp32 products, in any order, rounded to bf16.
TEST_P(ConvKernelTest, RealNumbers) {
  for (ConvolutionProblem problem : kProblems) {
    for (const Pass pass : {Pass::kForward, Pass::kBackwardData}) {
      problem.pass = pass;
      if (CanRun(GetParam(), problem)) CheckReals(GetParam(), problem);
    }
  }
}

// ---- Pooling ------------------------------------------------------------------------------------------

struct NaivelyPooled {
  std::vector<bf16> values;  // [pixel][channel]
  std::vector<uint8_t> positions;
};

// The first maximum of the 3x3 neighbours in scan order. A NaN is larger than every number.
NaivelyPooled PoolNaively(const Gemm& g, const std::vector<bf16>& in) {
  NaivelyPooled pooled;
  for (int index = 0; index < g.pixels(); ++index) {
    const Pixel pixel = PixelAt(g, index);
    for (int channel = 0; channel < g.depth; ++channel) {
      float best = 0;
      int first = -1;
      for (int row = std::max(pixel.row - 1, 0); row <= std::min(pixel.row + 1, g.height - 1); ++row) {
        for (int column = std::max(pixel.column - 1, 0); column <= std::min(pixel.column + 1, g.width - 1);
             ++column) {
          const int64_t at = (int64_t{pixel.image} * g.height + row) * g.width + column;
          const float value = ToFloat(in.at(static_cast<size_t>(at * g.in_pitch + channel)));
          if (first >= 0 && !(value > best) && !std::isnan(value)) continue;
          best = value;
          first = (row - pixel.row + 1) * 3 + column - pixel.column + 1;
        }
      }
      pooled.values.push_back(ToBf16(best));
      pooled.positions.push_back(static_cast<uint8_t>(first));
    }
  }
  return pooled;
}

TEST(ConvOfMaximaTest, FirstMaximaAndTheirPlaces) {
  const Gemm g = tensor_core::GemmOf(Problem(Pass::kForward, 3, 6, 5, 16, 8, 1));
  std::minstd_rand generator;
  std::vector<bf16> in = WholeNumbers(static_cast<size_t>(g.pixels() * g.depth), generator);
  for (size_t i = 0; i < in.size(); i += 7) in[i] = ToBf16(i % 2 == 0 ? -INFINITY : NAN);
  const NaivelyPooled expected = PoolNaively(g, in);
  for (int index = 0; index < g.pixels(); ++index) {
    for (int channel = 0; channel < g.depth; channel += kChunk) {
      const Source at = SourceAt(g, index);
      const Maxima maxima = PoolChunk(g, in.data(), at, channel);
      const auto values = std::bit_cast<std::array<bf16, kChunk>>(maxima.values);
      const auto positions = std::bit_cast<std::array<uint8_t, kChunk>>(maxima.positions);
      for (int j = 0; j < kChunk; ++j) {
        const auto i = static_cast<size_t>(index * g.depth + channel + j);
        ASSERT_EQ(values[j].bits, expected.values[i].bits) << index << ", " << channel + j;
        const int row = at.row + positions[j] / 3 - 1, column = at.column + positions[j] % 3 - 1;
        ASSERT_TRUE(row >= 0 && row < g.height && column >= 0 && column < g.width) << index;
        if (!std::isnan(ToFloat(values[j]))) {
          ASSERT_EQ(positions[j], expected.positions[i]) << index << ", " << channel + j;
        }
      }
    }
  }
}

TEST(ConvOfMaximaTest, Forward) {
  // Covers three tiles of pixels, depths of one and two steps, columns of one and two tiles of 64.
  for (ConvolutionProblem problem :
       {Problem(Pass::kForward, 6, 7, 7, 40, 32, 1), Problem(Pass::kForward, 1, 18, 15, 112, 136, 1)}) {
    problem.bias = problem.relu = true;
    const ConvolutionProblem dense = problem;
    problem.x_pitch = problem.c + 24;
    const Gemm g = tensor_core::GemmOf(problem);
    std::minstd_rand generator;
    const std::vector<bf16> in = WholeNumbers(SizesOf(problem).a / 2, generator),
                            weights = WholeNumbers(SizesOf(problem).b / 2, generator);
    std::vector<bf16> out(SizesOf(problem).d / 2);
    Operands operands = {{}, ElementsOf(weights), in.data()};
    const std::vector<bf16> bias = WholeNumbers(static_cast<size_t>(g.columns), generator);
    const NaivelyPooled pooled = PoolNaively(g, in);
    std::vector<bf16> expected(out.size());
    const auto device = testing::MakeHostCudaDevice();
    (*AsCuda(*device).Plan(dense))
        ->Run({.a = pooled.values.data(), .b = weights.data(), .d = expected.data(), .bias = bias.data()});
    const auto check = [&](const auto& block, int tile_columns) {
      std::fill(out.begin(), out.end(), bf16{kPoison});
      std::vector<uint8_t> positions(pooled.positions.size(), 0xFF);
      operands.positions = positions.data();
      Epilogue e;
      e.out = out.data();
      e.bias = bias.data();
      e.relu = true;
      for (int i = 0; i < Blocks(g, tile_columns); ++i) block(g, operands, e, i);
      EXPECT_TRUE(SameBits(out, expected)) << tile_columns;
      EXPECT_EQ(positions, pooled.positions) << tile_columns;
    };
    check(BlockSm80<false, 64, true>, 64);
    check(BlockSm80<false, 128, true>, 128);
  }
}

}  // namespace
}  // namespace deeper::conv
