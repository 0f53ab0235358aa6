// The tensor maps of conv_sm90.cu keep the rules that cuda.h states for cuTensorMapEncodeIm2col and
// cuTensorMapEncodeTiled, and describe the whole tensors.
#include "kernels/cuda/tensor_core/conv_tensor_map.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/plans/cuda_problem.h"
#include "kernels/cuda/tensor_core/conv_dw_tiling.h"
#include "kernels/cuda/tensor_core/conv_kernels.h"
#include "kernels/cuda/tensor_core/conv_tensor_core.h"
#include "tests/kernels/cuda/tensor_core/conv_problem.h"
#include "tests/kernels/googlenet_shapes.h"

namespace deeper::conv {
namespace {

using Pass = ConvolutionProblem::Pass;

// The widest side of a box that the swizzle permits, in bytes; 0: any.
uint64_t SwizzleBytes(CUtensorMapSwizzle swizzle) {
  switch (swizzle) {
    case CU_TENSOR_MAP_SWIZZLE_NONE:
      return 0;
    case CU_TENSOR_MAP_SWIZZLE_32B:
      return 32;
    case CU_TENSOR_MAP_SWIZZLE_64B:
      return 64;
    default:
      return 128;
  }
}

// The rules of both functions, for 16-bit types without interleaving. Returns the first one that a map
// breaks, or "".
template <int kDimensions>
std::string BrokenCommonRule(const TensorMapOf<kDimensions>& m, uint64_t inner_elements) {
  const uint64_t element = 2;
  if (m.type != CU_TENSOR_MAP_DATA_TYPE_BFLOAT16) return "type";
  if (m.interleave != CU_TENSOR_MAP_INTERLEAVE_NONE) return "interleave";
  if (m.address == nullptr || reinterpret_cast<uintptr_t>(m.address) % 16 != 0) return "address";
  for (const uint64_t size : m.sizes) {
    if (size == 0 || size > uint64_t{1} << 32) return "size";
  }
  uint64_t least = m.sizes[0] * element;
  for (int i = 0; i < kDimensions - 1; ++i) {
    if (m.strides[i] % 16 != 0 || m.strides[i] >= uint64_t{1} << 40) return "stride";
    if (m.strides[i] < least) return "stride less than the dimension before";
    least = m.strides[i] * m.sizes[i + 1];
  }
  for (const uint32_t step : m.steps) {
    if (step == 0 || step > 8) return "step";
  }
  if (inner_elements * element % 16 != 0) return "inner side of the box";
  const uint64_t most = SwizzleBytes(m.swizzle);
  if (most != 0 && inner_elements * element > most) return "swizzle";
  return "";
}

std::string BrokenRule(const TiledMap& m) {
  for (const uint32_t side : m.box) {
    if (side == 0 || side > 256) return "box";
  }
  return BrokenCommonRule(m, m.box[0]);
}

std::string BrokenRule(const Im2colMap& m) {
  if (m.kRank != 4) return "rank";
  for (int i = 0; i < 2; ++i) {
    if (m.lower[i] < -128 || m.lower[i] > 127 || m.upper[i] < -128 || m.upper[i] > 127) return "corner";
    // From the lower corner to the last element plus the upper corner.
    if (static_cast<int64_t>(m.sizes[1 + i]) + m.upper[i] - m.lower[i] <= 0) return "empty box";
  }
  if (m.channels == 0 || m.channels > 256) return "channels";
  if (m.pixels == 0 || m.pixels > 1024) return "pixels";
  return BrokenCommonRule(m, m.channels);
}

// As KernelAlgorithm::Enqueue requires.
alignas(16) const bf16 kMemory[8] = {};

template <class Visit, int... kColumns>
void ForEach(Sizes<kColumns...>, const Visit& visit) {
  (visit(kColumns), ...);
}
template <class Visit>
void ForEachTile(const Gemm& g, const Visit& visit) {
  if (g.across == 1) ForEach(Sm90Tiles<1, false>(), visit);
  if (g.across == 3 && !g.backward) ForEach(Sm90Tiles<3, false>(), visit);
  if (g.across == 3 && g.backward) ForEach(Sm90Tiles<3, true>(), visit);
  if (g.across == 5 && !g.backward) ForEach(Sm90Tiles<5, false>(), visit);
  if (g.across == 5 && g.backward) ForEach(Sm90Tiles<5, true>(), visit);
}

void CheckMaps(const ConvolutionProblem& problem) {
  SCOPED_TRACE(ToString(problem));
  Gemm g = tensor_core::GemmOf(problem);
  for (const int across : {1, g.kernel}) {
    if (across > 5) continue;  // no kernels
    g.across = across;
    const Im2colMap pixels = PixelMap(g, kMemory);
    EXPECT_EQ(BrokenRule(pixels), "") << across << " taps";
    // The last byte of the map is that of the last pixel's last channel.
    const uint64_t last = (pixels.sizes[1] - 1) * pixels.strides[0] +
                          (pixels.sizes[2] - 1) * pixels.strides[1] +
                          (pixels.sizes[3] - 1) * pixels.strides[2] + pixels.sizes[0] * sizeof(bf16);
    EXPECT_EQ(last, SizesOf(problem).a);
    ForEachTile(g, [&](int columns) {
      const TiledMap weights = WeightMap(g, columns, kMemory);
      EXPECT_EQ(BrokenRule(weights), "") << columns << " columns";
      EXPECT_EQ(weights.strides[1] * weights.sizes[2], SizesOf(problem).b);
      EXPECT_EQ(weights.box[0] * sizeof(bf16), kRowBytes + 0u);
      EXPECT_EQ(weights.box[2] + 0u, static_cast<unsigned>(g.backward ? kBoxRows : columns));
    });
  }
}

// Of x and dy, for the gradient of the weights.
void CheckGradientMaps(const ConvolutionProblem& problem) {
  SCOPED_TRACE(ToString(problem));
  Gemm g = tensor_core::GemmOf(problem);
  g.across = kDwTaps;
  const Im2colMap x = PixelMap(g, kMemory), dy = GradientMap(g, kMemory);
  EXPECT_EQ(BrokenRule(x), "");
  EXPECT_EQ(BrokenRule(dy), "");
  EXPECT_EQ(x.pixels, kTilePixels + 2u);
  EXPECT_EQ(dy.pixels, kTilePixels + 0u);
  const auto bytes = [](const Im2colMap& m) {
    return (m.sizes[1] - 1) * m.strides[0] + (m.sizes[2] - 1) * m.strides[1] +
           (m.sizes[3] - 1) * m.strides[2] + m.sizes[0] * sizeof(bf16);
  };
  EXPECT_EQ(bytes(x), SizesOf(problem).a);
  EXPECT_EQ(bytes(dy), SizesOf(problem).b);
  // Their rows have as many places.
  for (const Im2colMap& m : {x, dy}) {
    EXPECT_EQ(static_cast<int64_t>(m.sizes[1]) + m.upper[0] - m.lower[0], g.width + 1);
    EXPECT_EQ(static_cast<int64_t>(m.sizes[2]) + m.upper[1] - m.lower[1], g.height);
  }
}

TEST(TensorMapTest, GradientsOfWeights) {
  for (const int64_t images : {1, 3, 256}) {
    for (const testing::ConvolutionShape& s : testing::kGoogLeNetShapes) {
      ConvolutionProblem problem = Problem(Pass::kBackwardWeights, images, s.size, s.size, s.c, s.k, 3);
      CheckGradientMaps(problem);
      for (const int64_t more : {8, 40, 336, 1000}) {
        problem.x_pitch = s.c + more;
        problem.y_pitch = s.k + more;
        CheckGradientMaps(problem);
      }
    }
  }
  CheckGradientMaps(Problem(Pass::kBackwardWeights, 1, 1, 1, 8, 8, 3));
  CheckGradientMaps(Problem(Pass::kBackwardWeights, 2'000'000, 32, 32, 8, 8, 3));
}

TEST(TensorMapTest, GoogLeNet) {
  for (const Pass pass : {Pass::kForward, Pass::kBackwardData}) {
    for (const int64_t images : {1, 3, 256}) {
      for (const testing::ConvolutionShape& s : testing::kGoogLeNetShapes) {
        ConvolutionProblem problem = Problem(pass, images, s.size, s.size, s.c, s.k, s.kernel);
        CheckMaps(problem);
        for (const int64_t more : {8, 40, 336, 1000}) {  // of slices
          problem.x_pitch = s.c + more;
          problem.y_pitch = s.k + more;
          CheckMaps(problem);
        }
      }
    }
  }
}

// The extremes that the kernels accept (conv_tensor_core.cpp).
TEST(TensorMapTest, UnusualShapes) {
  for (const Pass pass : {Pass::kForward, Pass::kBackwardData}) {
    CheckMaps(Problem(pass, 1, 1, 1, 8, 8, 255));
    CheckMaps(Problem(pass, 1, 1, 1, 8, 8, 5));
    CheckMaps(Problem(pass, 2'000'000, 32, 32, 8, 8, 3));
    CheckMaps(Problem(pass, 1, 1, 2'000'000'000, 8, 8, 1));
  }
}

TEST(TensorMapTest, MistakesAreFound) {
  const Gemm g = tensor_core::GemmOf(Problem(Pass::kForward, 3, 28, 28, 96, 128, 3));
  const auto pixels = [&](const std::function<void(Im2colMap&)>& change) {
    Im2colMap map = PixelMap(g, kMemory);
    change(map);
    return BrokenRule(map);
  };
  EXPECT_EQ(pixels([](Im2colMap&) {}), "");
  EXPECT_EQ(pixels([](Im2colMap& m) { m.address = static_cast<char*>(m.address) + 8; }), "address");
  EXPECT_EQ(pixels([](Im2colMap& m) { m.strides[0] += 8; }), "stride");
  EXPECT_EQ(pixels([](Im2colMap& m) { m.strides[0] = 96; }), "stride less than the dimension before");
  EXPECT_EQ(pixels([](Im2colMap& m) { m.strides[2] = m.strides[1]; }),
            "stride less than the dimension before");
  EXPECT_EQ(pixels([](Im2colMap& m) { m.strides[2] = uint64_t{1} << 40; }), "stride");
  EXPECT_EQ(pixels([](Im2colMap& m) { m.sizes[3] = 0; }), "size");
  EXPECT_EQ(pixels([](Im2colMap& m) { m.sizes[3] = (uint64_t{1} << 32) + 1; }), "size");
  EXPECT_EQ(pixels([](Im2colMap& m) { m.lower[0] = -129; }), "corner");
  EXPECT_EQ(pixels([](Im2colMap& m) { m.upper[1] = 128; }), "corner");
  EXPECT_EQ(pixels([](Im2colMap& m) { m.lower[0] = 14, m.upper[0] = -14; }), "empty box");
  EXPECT_EQ(pixels([](Im2colMap& m) { m.channels = 512; }), "channels");
  EXPECT_EQ(pixels([](Im2colMap& m) { m.channels = 128; }), "swizzle");
  EXPECT_EQ(pixels([](Im2colMap& m) { m.channels = 36; }), "inner side of the box");
  EXPECT_EQ(pixels([](Im2colMap& m) { m.pixels = 1025; }), "pixels");
  EXPECT_EQ(pixels([](Im2colMap& m) { m.steps[1] = 0; }), "step");
  EXPECT_EQ(pixels([](Im2colMap& m) { m.steps[2] = 9; }), "step");
  EXPECT_EQ(pixels([](Im2colMap& m) { m.swizzle = CU_TENSOR_MAP_SWIZZLE_64B; }), "swizzle");
  EXPECT_EQ(pixels([](Im2colMap& m) { m.interleave = CU_TENSOR_MAP_INTERLEAVE_16B; }), "interleave");
  EXPECT_EQ(pixels([](Im2colMap& m) { m.type = CU_TENSOR_MAP_DATA_TYPE_FLOAT32; }), "type");

  const auto weights = [&](const std::function<void(TiledMap&)>& change) {
    TiledMap map = WeightMap(g, 128, kMemory);
    change(map);
    return BrokenRule(map);
  };
  EXPECT_EQ(weights([](TiledMap&) {}), "");
  EXPECT_EQ(weights([](TiledMap& m) { m.box[2] = 320; }), "box");
  EXPECT_EQ(weights([](TiledMap& m) { m.box[1] = 0; }), "box");
  EXPECT_EQ(weights([](TiledMap& m) { m.box[0] = 128; }), "swizzle");
  EXPECT_EQ(weights([](TiledMap& m) { m.strides[0] = 24; }), "stride");

  // Channels and pitches that are no multiples of 8, which the kernels refuse, would break rules.
  EXPECT_EQ(BrokenRule(PixelMap(tensor_core::GemmOf(Problem(Pass::kForward, 1, 7, 7, 12, 16, 3)), kMemory)),
            "stride");
  EXPECT_EQ(
      BrokenRule(WeightMap(tensor_core::GemmOf(Problem(Pass::kForward, 1, 7, 7, 12, 16, 3)), 64, kMemory)),
      "stride");
  EXPECT_EQ(BrokenRule(PixelMap(tensor_core::GemmOf(Problem(Pass::kForward, 1, 7, 7, 16, 16, 259)), kMemory)),
            "corner");
}

}  // namespace
}  // namespace deeper::conv
