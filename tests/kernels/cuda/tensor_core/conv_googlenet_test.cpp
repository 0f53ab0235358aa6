// The convolutions of GoogLeNet at batch 1, 3 and 256, by every kernel that the tuner may choose, in emulated
// blocks. Tensors are functions of the index, and outputs are in memory that the system provides when it is
// written, so that large batches need little memory.
//
// Emulated are the last tile and one across the border of two images. With $DEEPER_EMULATION, all tiles:
// "first", by the first kernel of each problem; else, by the kernels whose names start with it. All of "sm90"
// take a quarter of an hour of a core with AVX-512 and -march=native, "sm80" longer.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/cuda/plans/cuda_problem.h"
#include "kernels/cuda/tensor_core/conv_tensor_core.h"
#include "tests/kernels/cuda/tensor_core/block_emulation.h"
#include "tests/kernels/cuda/tensor_core/conv_problem.h"
#include "tests/kernels/cuda/tensor_core/mma_emulation.h"
#include "tests/kernels/googlenet_shapes.h"

namespace deeper::conv {
namespace {

using Pass = ConvolutionProblem::Pass;

std::string_view Mode() {
  const char* const mode = std::getenv("DEEPER_EMULATION");
  return mode == nullptr ? "" : mode;
}

// The elements of a tensor that is not in memory.
struct Numbers {
  uint64_t seed;
  bool whole;

  bf16 operator()(size_t index) const { return HashedNumber(seed, index, whole); }
};

// Zeros, at first.
std::unique_ptr<bf16[], void (*)(void*)> Memory(int64_t elements) {
  return {static_cast<bf16*>(std::calloc(static_cast<size_t>(elements), sizeof(bf16))), std::free};
}

// A convolution by definition, pixel by pixel, each only once.
template <class Number>
class Expected {
 public:
  struct Sums {
    std::vector<Number> of_products,
        of_sizes;  // by column; sizes are sums of absolute values, for double only
  };

  Expected(const Gemm& g, const Numbers& in, const Numbers& weights) : g_(g), in_(in) {
    const auto depth = static_cast<size_t>(g.depth), columns = static_cast<size_t>(g.columns);
    weights_.resize(static_cast<size_t>(g.taps()) * depth * columns);
    for (int tap = 0; tap < g.taps(); ++tap) {
      for (size_t d = 0; d < depth; ++d) {
        for (size_t k = 0; k < columns; ++k) {
          const auto of = static_cast<size_t>(g.backward ? g.taps() - 1 - tap : tap);
          const size_t filter = g.backward ? d : k, channel = g.backward ? k : d;
          const size_t index =
              (filter * static_cast<size_t>(g.taps()) + of) * (g.backward ? columns : depth) + channel;
          weights_[(static_cast<size_t>(tap) * depth + d) * columns + k] = Number{ToFloat(weights(index))};
        }
      }
    }
  }

  void Forget() { known_.clear(); }
  const Sums& At(int pixel) {
    const auto [at, is_new] = known_.try_emplace(pixel);
    if (!is_new) return at->second;
    const auto columns = static_cast<size_t>(g_.columns);
    std::vector<Number> sums(columns), sizes(columns);
    const int row = pixel / g_.width % g_.height, column = pixel % g_.width;
    for (int tap = 0; tap < g_.taps(); ++tap) {
      const int down = tap / g_.kernel - g_.pad(), right = tap % g_.kernel - g_.pad();
      if (row + down < 0 || row + down >= g_.height || column + right < 0 || column + right >= g_.width)
        continue;
      const int64_t from = (int64_t{pixel} + down * g_.width + right) * g_.in_pitch;
      for (int d = 0; d < g_.depth; ++d) {
        const Number x{ToFloat(in_(static_cast<size_t>(from + d)))};
        AddScaled(x, &weights_[static_cast<size_t>(tap * g_.depth + d) * columns], columns, sums.data(),
                  sizes.data());
      }
    }
    at->second = {std::move(sums), std::move(sizes)};
    return at->second;
  }

 private:
  static void AddScaled(Number x, const Number* __restrict w, size_t count, Number* __restrict sums,
                        Number* __restrict sizes) {
    for (size_t k = 0; k < count; ++k) sums[k] += x * w[k];
    if constexpr (std::is_same_v<Number, double>) {
      for (size_t k = 0; k < count; ++k) sizes[k] += std::abs(x * w[k]);
    }
  }

  const Gemm g_;
  const Numbers in_;
  std::vector<Number> weights_;  // [tap][depth][column]
  std::map<int, Sums> known_;
};

// One problem with its operands, on which kernels run.
template <class Number>
class Convolution {
 public:
  Convolution(const ConvolutionProblem& problem, bool whole)
      : problem_(problem),
        g_(tensor_core::GemmOf(problem)),
        in_{1, whole},
        weights_{2, whole},
        numbers_{3, true},
        out_(Memory(g_.pixels() * g_.out_pitch)),
        mask_(Memory(problem.mask_dx ? g_.pixels() * g_.mask_pitch : 1)),
        expected_(g_, in_, weights_) {
    for (int k = 0; k < g_.columns; ++k) bias_.push_back(numbers_(static_cast<size_t>(k)));
  }

  // Emulates the tiles of the same pixels.
  void Run(const Kernel& kernel, int pixel_tile) {
    Gemm g = g_;
    g.across = kernel.across;
    const int across = CeilDiv(g.columns, kernel.tile_columns);
    const std::vector<int> pixels = PixelsOf(g, TileOf(g, kernel.tile_columns, pixel_tile * across));
    for (const int pixel : pixels) {
      for (int k = 0; k < g.columns; ++k) {
        out_[pixel * g.out_pitch + k] = {kPoison};
        if (problem_.mask_dx) mask_[pixel * g.mask_pitch + k] = MaskAt(pixel, k);
      }
    }
    std::vector<float> sums(static_cast<size_t>(g.pixel_tiles() * g.columns));
    Epilogue e;
    e.out = out_.get();
    if (problem_.bias) e.bias = bias_.data();
    e.relu = problem_.relu;
    if (problem_.mask_dx) {
      e.mask = mask_.get();
      e.sums = sums.data();
    }
    const Operands operands = {in_, weights_};
    for (int i = 0; i < across; ++i) {
      (g.backward ? kernel.backward : kernel.forward)(g, operands, e, pixel_tile * across + i);
    }
    Check(g, pixels, &sums[static_cast<size_t>(pixel_tile * g.columns)]);
  }

  int PixelTiles(const Kernel& kernel) const {
    Gemm g = g_;
    g.across = kernel.across;
    return g.pixel_tiles();
  }
  void ForgetExpected() { expected_.Forget(); }
  // The tile in which an image begins.
  int TileOfImage(const Kernel& kernel, int image) const {
    Gemm g = g_;
    g.across = kernel.across;
    return image * g.height * g.row_places() / kTilePixels;
  }

 private:
  static std::vector<int> PixelsOf(const Gemm& g, const Tile& tile) {
    std::vector<int> pixels;
    for (int place = tile.place; place < std::min(tile.place + kTilePixels, g.places()); ++place) {
      const Pixel at = PixelAt(g, place);
      if (at.column < g.width) pixels.push_back((at.image * g.height + at.row) * g.width + at.column);
    }
    return pixels;
  }
  bf16 MaskAt(int pixel, int k) const {
    return numbers_(static_cast<size_t>(pixel) * 1024 + static_cast<size_t>(k));
  }

  void Check(const Gemm& g, const std::vector<int>& pixels, const float* sums) {
    std::vector<float> expected_sums(static_cast<size_t>(g.columns));
    for (const int pixel : pixels) {
      const auto& expected = expected_.At(pixel);
      for (int k = 0; k < g.columns; ++k) {
        const auto column = static_cast<size_t>(k);
        const bf16 stored = out_[pixel * g.out_pitch + k];
        const Number sum = expected.of_products[column];
        if (in_.whole) {
          float value = static_cast<float>(sum) + (problem_.bias ? ToFloat(bias_[column]) : 0);
          if (problem_.relu) value = std::max(value, 0.0f);
          if (problem_.mask_dx && !(ToFloat(MaskAt(pixel, k)) > 0)) value = 0;
          // Also equal: zeros of both signs.
          ASSERT_EQ(ToFloat(stored), ToFloat(ToBf16(value))) << "pixel " << pixel << ", column " << k;
          expected_sums[column] += ToFloat(stored);
        } else {
          const double size = expected.of_sizes[column];
          ASSERT_NEAR(ToFloat(stored), sum, std::ldexp(std::abs(sum), -8) + std::ldexp(size, -18))
              << "pixel " << pixel << ", column " << k;
        }
      }
    }
    for (int k = 0; problem_.mask_dx && k < g.columns; ++k) {
      ASSERT_EQ(sums[k], expected_sums[static_cast<size_t>(k)]) << "sum of column " << k;
    }
  }

  const ConvolutionProblem problem_;
  const Gemm g_;
  const Numbers in_, weights_, numbers_;
  std::unique_ptr<bf16[], void (*)(void*)> out_, mask_;
  std::vector<bf16> bias_;
  Expected<Number> expected_;
};

// The kernels that the tuner tries for a problem on a GPU of compute capability 9.0.
std::vector<Kernel> KernelsFor(const ConvolutionProblem& problem) {
  static const std::vector<Kernel> all = Kernels();
  std::vector<Kernel> kernels;
  const auto choice = tensor_core::Choose(90, problem);
  EXPECT_TRUE(choice.ok()) << choice.status();
  if (!choice.ok()) return kernels;
  for (size_t i = 0; i < (*choice)->size(); ++i) {
    const std::string name = *(*(*choice)->Build(i))->Serialize();  // "deeper sm90 rows 128x96"
    const bool rows = name.find("rows") != std::string::npos;
    const int columns = std::stoi(name.substr(name.find("128x") + 4));
    const std::string code = name.substr(7, 4);
    const auto found = std::find_if(all.begin(), all.end(), [&](const Kernel& kernel) {
      return kernel.name.starts_with(code) && kernel.tile_columns == columns && (kernel.across > 1) == rows &&
             CanRun(kernel, problem);
    });
    EXPECT_NE(found, all.end()) << name;
    if (found != all.end()) kernels.push_back(*found);
  }
  if (Mode() == "first") {
    kernels.erase(kernels.begin() + 1, kernels.end());
  } else {
    std::erase_if(kernels, [](const Kernel& kernel) { return !kernel.name.starts_with(Mode()); });
  }
  return kernels;
}

struct Case {
  testing::ConvolutionShape shape;
  Pass pass;
};
std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const testing::ConvolutionShape& shape : testing::kGoogLeNetShapes) {
    for (const Pass pass : {Pass::kForward, Pass::kBackwardData}) cases.push_back({shape, pass});
  }
  return cases;
}

class GoogLeNetConvolutionTest : public ::testing::TestWithParam<Case> {
 protected:
  // A slice, as a module has it.
  static ConvolutionProblem ProblemOf(int64_t images) {
    const auto& [s, pass] = GetParam();
    ConvolutionProblem problem = Problem(pass, images, s.size, s.size, s.c, s.k, s.kernel);
    problem.x_pitch = s.c + 40;
    problem.y_pitch = s.k + 24;
    return problem;
  }
};
std::string NameOf(const ::testing::TestParamInfo<Case>& info) {
  const auto& [s, pass] = info.param;
  return "Map" + std::to_string(s.size) + "Channels" + std::to_string(s.c) + "Filters" + std::to_string(s.k) +
         "Size" + std::to_string(s.kernel) + (pass == Pass::kForward ? "Forward" : "Backward");
}
INSTANTIATE_TEST_SUITE_P(, GoogLeNetConvolutionTest, ::testing::ValuesIn(Cases()), NameOf);

TEST_P(GoogLeNetConvolutionTest, WholeNumbersAreExact) {
  for (const int images : {1, 3, 256}) {
    ConvolutionProblem problem = ProblemOf(images);
    problem.bias = problem.relu = problem.pass == Pass::kForward;
    problem.mask_dx = problem.pass == Pass::kBackwardData;
    problem.mask_pitch = problem.c + 16;
    Convolution<float> convolution(problem, true);
    const std::vector<Kernel> kernels = KernelsFor(problem);
    EXPECT_FALSE(kernels.empty());
    // A few images at a time, since results by definition take much memory.
    constexpr int kImages = 16;
    for (int image = 0; image < images; image += kImages, convolution.ForgetExpected()) {
      for (const Kernel& kernel : kernels) {
        SCOPED_TRACE(kernel.name + ", " + ToString(problem));
        const int first = convolution.TileOfImage(kernel, image), all = convolution.PixelTiles(kernel),
                  end = image + kImages < images ? convolution.TileOfImage(kernel, image + kImages) : all;
        std::set<int> some = {all - 1, convolution.TileOfImage(kernel, images == 256 ? 129 : images - 1)};
        for (int tile = first; !Mode().empty() && tile < end; ++tile) some.insert(tile);
        for (const int tile : some) {
          if (tile >= first && tile < end) convolution.Run(kernel, tile);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST_P(GoogLeNetConvolutionTest, RealNumbersAreClose) {
  const ConvolutionProblem problem = ProblemOf(3);
  Convolution<double> convolution(problem, false);
  for (const Kernel& kernel : KernelsFor(problem)) {
    SCOPED_TRACE(kernel.name + ", " + ToString(problem));
    convolution.Run(kernel, convolution.TileOfImage(kernel, 1));
    if (HasFatalFailure()) return;
  }
}

// ---- 1x1 convolutions of 3x3 maxima ---------------------------------------------------------------------

// The first maximum of a pixel's neighbours, and its position.
struct Maximum {
  float value = -INFINITY;
  int position = 0;
};
Maximum MaximumAt(const Gemm& g, const Numbers& x, int pixel, int channel) {
  const int row = pixel / g.width % g.height, column = pixel % g.width;
  Maximum maximum;
  for (int position = 0; position < 9; ++position) {
    const int down = position / 3 - 1, right = position % 3 - 1;
    if (row + down < 0 || row + down >= g.height || column + right < 0 || column + right >= g.width) continue;
    const int64_t at = int64_t{pixel} + down * g.width + right;
    const float value = ToFloat(x(static_cast<size_t>(at * g.in_pitch + channel)));
    if (value > maximum.value) maximum = {value, position};
  }
  return maximum;
}

void CheckPooledTile(const Gemm& g, int tile_columns, Block block, int pixel_tile) {
  const Numbers x{1, true}, weights{2, true};
  const auto in = Memory(g.pixels() * g.in_pitch), out = Memory(g.pixels() * g.out_pitch);
  std::vector<uint8_t> positions(static_cast<size_t>(g.pixels() * g.depth), 0xFF);
  const int first = pixel_tile * kTilePixels, end = std::min(first + kTilePixels, g.pixels()),
            margin = g.width + 1;
  for (int pixel = std::max(first - margin, 0); pixel < std::min(end + margin, g.pixels()); ++pixel) {
    for (int c = 0; c < g.depth; ++c)
      in[pixel * g.in_pitch + c] = x(static_cast<size_t>(pixel * g.in_pitch + c));
  }
  Epilogue e;
  e.out = out.get();
  e.relu = true;
  const Operands operands = {{}, weights, in.get(), positions.data()};
  const int across = CeilDiv(g.columns, tile_columns);
  for (int i = 0; i < across; ++i) block(g, operands, e, pixel_tile * across + i);
  for (int pixel = first; pixel < end; ++pixel) {
    std::vector<Maximum> maxima;
    for (int c = 0; c < g.depth; ++c) {
      maxima.push_back(MaximumAt(g, x, pixel, c));
      ASSERT_EQ(positions[static_cast<size_t>(pixel * g.depth + c)], maxima.back().position)
          << pixel << ", " << c;
    }
    for (int k = 0; k < g.columns; ++k) {
      float sum = 0;
      for (int c = 0; c < g.depth; ++c) {
        sum += maxima[static_cast<size_t>(c)].value * ToFloat(weights(static_cast<size_t>(k * g.depth + c)));
      }
      ASSERT_EQ(ToFloat(out[pixel * g.out_pitch + k]), ToFloat(ToBf16(std::max(sum, 0.0f))))
          << pixel << ", " << k;
    }
  }
}

TEST(GoogLeNetMaximaTest, WholeNumbersAreExact) {
  for (const testing::ConvolutionShape& s : testing::kPoolBranches) {
    for (const int images : {1, 3, 256}) {
      ConvolutionProblem problem = Problem(Pass::kForward, images, s.size, s.size, s.c, s.k, 1);
      problem.x_pitch = s.c + 24;
      problem.y_pitch = s.k + 8;
      SCOPED_TRACE(ToString(problem));
      const Gemm g = tensor_core::GemmOf(problem);
      const int border = (images == 256 ? 129 : images - 1) * g.height * g.width / kTilePixels;
      for (const int tile : std::set<int>{border, g.pixel_tiles() - 1}) {
        CheckPooledTile(g, 64, BlockSm80<false, 64, true>, tile);
        CheckPooledTile(g, 128, BlockSm80<false, 128, true>, tile);
        if (HasFatalFailure()) return;
      }
    }
  }
}

}  // namespace
}  // namespace deeper::conv
