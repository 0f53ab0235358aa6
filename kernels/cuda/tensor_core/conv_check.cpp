#include "kernels/cuda/tensor_core/conv_check.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <utility>

#include "kernels/base/parallel.h"
#include "kernels/base/status.h"
#include "kernels/base/trial.h"
#include "kernels/cuda/plans/cuda_problem.h"
#include "kernels/cuda/tensor_core/conv_pool_tiling.h"
#include "kernels/cuda/tensor_core/conv_stem_tiling.h"
#include "kernels/cuda/tensor_core/conv_tensor_core.h"

namespace deeper {
namespace {

using Pass = ConvolutionProblem::Pass;

constexpr bf16 kUntouched = {0xFFFF};  // a NaN that no sum produces; two of them form one in fp32
constexpr uint8_t kNoArgmax = 0xFF;

template <class T>
std::vector<T> Read(const void* from, size_t bytes, Device& device) {
  std::vector<T> values(bytes / sizeof(T));
  device.Copy(values.data(), from, bytes);
  device.Synchronize();
  return values;
}

// d as pixels of several channels. A gradient of weights has filters instead of pixels.
struct Written {
  explicit Written(const ConvolutionProblem& p)
      : pixels(p.n * p.y_h() * p.y_w()),
        channels(p.k),
        pitch(p.PitchOfY()),
        products(p.kernel * p.kernel * p.c) {
    if (p.pass == Pass::kBackwardData) {
      pixels = p.n * p.h * p.w;
      channels = p.c;
      pitch = p.PitchOfX();
      products = p.kernel * p.kernel * p.k;
    } else if (p.pass == Pass::kBackwardWeights) {
      std::tie(pixels, products) = std::pair(p.k, pixels);
      channels = pitch = p.kernel * p.kernel * p.c;
      row = "filter";
    }
  }
  const char* row = "pixel";
  int64_t pixels, channels, pitch;
  int64_t products;  // summed per element
};

// Relative tolerance: one unit in the last place of bf16. Absolute tolerance near 0, for sums of operands up
// to 1: a small part of their usual size, the square root of the number of products.
bool IsClose(float actual, float expected, int64_t products) {
  const float relative = std::ldexp(1.0f, -7), absolute = std::ldexp(static_cast<float>(products), -16);
  return std::abs(actual - expected) <= relative * std::abs(expected) + absolute;  // false for a NaN
}

// The computed and the expected results.
struct Comparison {
  const Written& d;
  const std::vector<bf16>& actual;
  const std::vector<bf16>& expected;  // before the mask
  const std::vector<bf16>& mask;      // empty: none
  int64_t mask_pitch;

  // `channel` counts all channels of the pixel in memory, including those of other slices.
  bool Agrees(int64_t pixel, int64_t channel) const {
    const bf16 value = actual[static_cast<size_t>(pixel * d.pitch + channel)];
    if (channel >= d.channels) return value.bits == kUntouched.bits;
    return IsClose(ToFloat(value), Expected(pixel, channel), d.products);
  }
  float Expected(int64_t pixel, int64_t channel) const {
    if (!mask.empty() && !(ToFloat(mask[static_cast<size_t>(pixel * mask_pitch + channel)]) > 0)) return 0;
    return ToFloat(expected[static_cast<size_t>(pixel * d.pitch + channel)]);
  }
};

absl::Status CompareElements(const Comparison& c) {
  const auto count = static_cast<int64_t>(c.actual.size());
  std::atomic<int64_t> wrong = count;  // index of a wrong element, or count if there is none
  ParallelFor(count, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (!c.Agrees(i / c.d.pitch, i % c.d.pitch)) wrong = i;
    }
  });
  if (wrong == count) return absl::OkStatus();
  const int64_t pixel = wrong / c.d.pitch, channel = wrong % c.d.pitch;
  if (channel >= c.d.channels) {
    return DataLoss("writes outside its channels, at pixel ", pixel);
  }
  return DataLoss("at ", c.d.row, " ", pixel, ", channel ", channel, ": ",
                  ToFloat(c.actual[static_cast<size_t>(wrong)]), ", and the library has ",
                  c.Expected(pixel, channel));
}

absl::Status CompareSums(const Written& d, const std::vector<bf16>& actual, const std::vector<float>& sums) {
  const double rounding = std::ldexp(1.0, -18);
  std::vector<double> expected(sums.size()), sizes(sums.size());
  ParallelFor(d.channels, 16, [&](int64_t begin, int64_t end) {
    for (int64_t pixel = 0; pixel < d.pixels; ++pixel) {
      for (int64_t channel = begin; channel < end; ++channel) {
        const float value = ToFloat(actual[static_cast<size_t>(pixel * d.pitch + channel)]);
        expected[static_cast<size_t>(channel)] += value;
        sizes[static_cast<size_t>(channel)] += std::abs(value);
      }
    }
  });
  for (size_t channel = 0; channel < sums.size(); ++channel) {
    if (std::abs(sums[channel] - expected[channel]) <= rounding * sizes[channel]) continue;
    return DataLoss("the sum of channel ", channel, ": ", sums[channel], ", not ", expected[channel]);
  }
  return absl::OkStatus();
}

// A pixel of y of a problem with pool_y: the pixel of the convolution's output that its window is around.
struct WindowPlace {
  WindowPlace(const ConvolutionProblem& p, int64_t window)
      : row(static_cast<int>(window / p.y_w() % p.y_h() * 2)),
        column(static_cast<int>(window % p.y_w() * 2)),
        centre((window / (p.y_h() * p.y_w()) * p.out_h() + row) * p.out_w() + column) {}
  int row, column;
  int64_t centre;
};

absl::Status CompareArgmax(const std::vector<uint8_t>& actual, const std::vector<uint8_t>& expected,
                           int64_t channels) {
  const auto [value, other] = std::mismatch(actual.begin(), actual.end(), expected.begin());
  if (value == actual.end()) return absl::OkStatus();
  const int64_t i = value - actual.begin();
  return DataLoss("the maximum of pixel ", i / channels, ", channel ", i % channels, ": at ", *value,
                  ", not ", *other);
}

}  // namespace

ConvolutionProblem ConvolutionCheck::LibraryProblem(const ConvolutionProblem& problem) {
  ConvolutionProblem plain = problem;
  plain.mask_dx = plain.pool_x = plain.pool_y = plain.wide_dw = false;
  if (problem.pool_x) plain.x_pitch = 0;
  return plain;
}

absl::Status ConvolutionCheck::operator()(Algorithm& own, PlanOperands operands) {
  RETURN_IF_ERROR(RunLibrary(operands));
  RETURN_IF_ERROR(ClearUnread(operands));
  const OperandSizes sizes = SizesOf(problem_);
  const std::vector<bf16> untouched(sizes.d / sizeof(bf16), kUntouched);
  const std::vector<uint8_t> no_argmax(sizes.argmax, kNoArgmax);
  const bool spreads = problem_.pool_y && problem_.pass == Pass::kBackwardWeights;
  device_.Copy(operands.d, untouched.data(), sizes.d);
  device_.Copy(operands.argmax, (spreads ? expected_argmax_ : no_argmax).data(), sizes.argmax);
  RETURN_IF_ERROR(RunOnRecord(own, operands));
  const Written d(problem_);
  const std::vector<bf16> actual = ReadD(operands), mask = Read<bf16>(operands.mask, sizes.mask, device_);
  absl::Status status = CompareElements({d, actual, expected_, mask, problem_.PitchOfMask()});
  if (problem_.mask_dx) {
    status.Update(CompareSums(d, actual, Read<float>(operands.sums, sizes.sums, device_)));
  }
  if (spreads) {
    ConvolutionProblem output = LibraryProblem(problem_);
    output.pass = Pass::kForward;
    status.Update(CompareSums(Written(output), convolved_, Read<float>(operands.sums, sizes.sums, device_)));
  }
  if (problem_.pool_y && !spreads) {
    status.Update(CheckPlaces(actual, Read<uint8_t>(operands.argmax, sizes.argmax, device_)));
  } else if (sizes.argmax > 0) {
    status.Update(CompareArgmax(Read<uint8_t>(operands.argmax, sizes.argmax, device_), expected_argmax_,
                                spreads ? problem_.k : problem_.c));
  }
  return status;
}

// Runs the library's first working algorithm, unless that was done.
absl::Status ConvolutionCheck::RunLibrary(PlanOperands operands) {
  if (!expected_.empty()) return absl::OkStatus();
  if (library_ == nullptr) return NotFound("no library to compare with");
  absl::Status status = library_->Ask();
  const size_t bytes = SizesOf(LibraryProblem(problem_)).d;
  Buffer pooled, convolved;
  if (problem_.pool_x) {
    pooled = Pool(operands.a);
    if (pooled.data() == nullptr) return ResourceExhausted("no memory");
    operands.a = pooled.data();
  }
  RETURN_IF_ERROR(ClearUnread(operands));
  if (problem_.pool_y && problem_.pass == Pass::kBackwardWeights) {
    ASSIGN_OR_RETURN(convolved, SpreadY(operands));
    operands.b = convolved.data();
  } else if (problem_.pool_y) {
    convolved = device_.Allocate(bytes);
    if (convolved.data() == nullptr) return ResourceExhausted("no memory");
    operands.d = convolved.data();
  }
  for (size_t i = 0; status.ok() && i < library_->size(); ++i) {
    const absl::StatusOr<std::unique_ptr<Algorithm>> algorithm = library_->Build(i);
    if (!algorithm.ok() || !Run(**algorithm, operands).ok()) continue;
    expected_ = Read<bf16>(operands.d, bytes, device_);
    if (problem_.pool_y && problem_.pass == Pass::kForward) PoolY();
    return absl::OkStatus();
  }
  return NotFound("no library algorithm to compare with runs");
}

// Computes maxpool(x), dense, on the device, and the positions of the maxima in expected_argmax_.
Buffer ConvolutionCheck::Pool(const void* x) {
  const conv::Gemm g = tensor_core::GemmOf(problem_);
  const std::vector<bf16> in = Read<bf16>(x, SizesOf(problem_).a, device_);
  const int64_t chunks = g.depth / conv::kChunk;
  std::vector<bf16> maxima(static_cast<size_t>(g.pixels() * int64_t{g.depth}));
  expected_argmax_.resize(maxima.size());
  ParallelFor(g.pixels() * chunks, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto pixel = static_cast<int>(i / chunks), channel = static_cast<int>(i % chunks) * conv::kChunk;
      const Maxima chunk = conv::PoolChunk(g, in.data(), conv::SourceAt(g, pixel), channel);
      std::memcpy(maxima.data() + i * conv::kChunk, &chunk.values, sizeof chunk.values);
      std::memcpy(expected_argmax_.data() + i * conv::kChunk, &chunk.positions, sizeof chunk.positions);
    }
  });
  return Upload(maxima).value_or(Buffer());
}

// Replaces expected_, the output of the convolution, by its maxima.
void ConvolutionCheck::PoolY() {
  const ConvolutionProblem& p = problem_;
  convolved_ = std::move(expected_);
  const auto height = static_cast<int>(p.out_h()), width = static_cast<int>(p.out_w());
  expected_.resize(SizesOf(p).d / sizeof(bf16));
  ParallelFor(p.n * p.y_h() * p.y_w(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const WindowPlace at(p, i);
      const WindowCentre centre = CentreAt(static_cast<int>(at.centre), at.row, at.column, height, width);
      for (int64_t channel = 0; channel < p.k; channel += conv::kChunk) {
        const Maxima maxima = MaximaOf(centre, [&](int pixel) { return &convolved_[pixel * p.k + channel]; });
        std::memcpy(&expected_[i * p.k + channel], &maxima.values, sizeof maxima.values);
      }
    }
  });
}

absl::Status ConvolutionCheck::CheckPlaces(const std::vector<bf16>& y,
                                           const std::vector<uint8_t>& places) const {
  const ConvolutionProblem& p = problem_;
  const int64_t products = Written(p).products, count = std::ssize(y);
  std::atomic<int64_t> wrong = count;
  const auto is_maximum = [&](int64_t i) {
    const float value = ToFloat(y[i]);
    if (!(value > 0) || places[i] == kNoMaximum) return !(value > 0) && places[i] == kNoMaximum;
    const WindowPlace at(p, i / p.k);
    const int64_t row = at.row - 1 + places[i] / 3, column = at.column - 1 + places[i] % 3;
    if (places[i] > 8 || row < 0 || row >= p.out_h() || column < 0 || column >= p.out_w()) return false;
    const int64_t pixel = at.centre + (row - at.row) * p.out_w() + column - at.column;
    return IsClose(ToFloat(convolved_[pixel * p.k + i % p.k]), value, products);
  };
  ParallelFor(count, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (!is_maximum(i)) wrong = i;
    }
  });
  if (wrong == count) return absl::OkStatus();
  return DataLoss("the maximum of pixel ", wrong / p.k, ", channel ", wrong % p.k, ": not at ",
                  static_cast<int>(places[wrong]));
}

// Of a problem with pool_y, replaces x and w by copies that keep its promise about channels.
absl::Status ConvolutionCheck::ClearUnread(PlanOperands& operands) {
  if (!problem_.pool_y) return absl::OkStatus();
  const auto clear = [&](const void*& operand, size_t bytes, Buffer& copy) -> absl::Status {
    if (copy.data() == nullptr) {
      std::vector<bf16> values = Read<bf16>(operand, bytes, device_);
      for (size_t i = 0; i < values.size(); ++i) {
        if (i % static_cast<size_t>(problem_.c) >= conv::kStemChannels) values[i] = {};
      }
      ASSIGN_OR_RETURN(copy, Upload(values));
    }
    operand = copy.data();
    return absl::OkStatus();
  };
  const OperandSizes sizes = SizesOf(problem_);
  RETURN_IF_ERROR(clear(operands.a, sizes.a, x_));
  return problem_.pass == Pass::kForward ? clear(operands.b, sizes.b, w_) : absl::OkStatus();
}

// Draws positions in the windows of y, most of which are those of a maximum, and returns the gradient of the
// convolution's output.
absl::StatusOr<Buffer> ConvolutionCheck::SpreadY(const PlanOperands& operands) {
  const ConvolutionProblem& p = problem_;
  const std::vector<bf16> dy = Read<bf16>(operands.b, SizesOf(p).b, device_);
  std::vector<float> dz(static_cast<size_t>(p.n * p.out_h() * p.out_w() * p.k));
  expected_argmax_.resize(dy.size());
  for (int64_t i = 0; i < std::ssize(dy); ++i) {
    const WindowPlace at(p, i / p.k);
    const auto place = static_cast<int>((i * 7 + i / p.k * 5) % 10);
    const int64_t row = at.row - 1 + place / 3, column = at.column - 1 + place % 3;
    const bool inside = row >= 0 && row < p.out_h() && column >= 0 && column < p.out_w();
    expected_argmax_[i] = static_cast<uint8_t>(place == kNoMaximum || inside ? place : 4);
    if (place == kNoMaximum) continue;
    const int64_t pixel = inside ? at.centre + (row - at.row) * p.out_w() + column - at.column : at.centre;
    dz[pixel * p.k + i % p.k] += ToFloat(dy[i]);
  }
  convolved_.resize(dz.size());
  std::transform(dz.begin(), dz.end(), convolved_.begin(), [](float value) { return ToBf16(value); });
  return Upload(convolved_);
}

absl::StatusOr<Buffer> ConvolutionCheck::Upload(const std::vector<bf16>& values) {
  Buffer copy = device_.Allocate(values.size() * sizeof(bf16));
  if (copy.data() == nullptr) return ResourceExhausted("no memory");
  device_.Copy(copy.data(), values.data(), copy.bytes());
  device_.Synchronize();
  return copy;
}

// Rounds an fp32 gradient to the precision of the library's.
std::vector<bf16> ConvolutionCheck::ReadD(const PlanOperands& operands) {
  const OperandSizes sizes = SizesOf(problem_);
  if (sizes.out == DType::kBf16) return Read<bf16>(operands.d, sizes.d, device_);
  std::vector<bf16> narrow;
  for (const float value : Read<float>(operands.d, sizes.d, device_)) narrow.push_back(ToBf16(value));
  return narrow;
}

absl::Status ConvolutionCheck::Run(Algorithm& algorithm, PlanOperands operands) {
  const Buffer workspace = device_.Allocate(algorithm.workspace_bytes());
  if (workspace.bytes() < algorithm.workspace_bytes()) return ResourceExhausted("no memory");
  operands.workspace = workspace.data();
  const Trial limit(algorithm.NameOfTrial(ToString(problem_)), limit_);
  const absl::Status status = algorithm.Enqueue(operands, device_.stream());
  device_.Synchronize();
  return status;
}

absl::Status ConvolutionCheck::RunOnRecord(Algorithm& own, const PlanOperands& operands) {
  ASSIGN_OR_RETURN(const std::string name, own.Serialize());
  absl::Status ran;
  RETURN_IF_ERROR(trials_.OnTrial(name, ToString(problem_), [&] { ran = Run(own, operands); }));
  return ran;
}

}  // namespace deeper
