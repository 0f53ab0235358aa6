#include "kernels/conv_check.h"

#include <atomic>
#include <cmath>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "kernels/cuda_problem.h"
#include "kernels/parallel.h"

namespace deeper {
namespace {

constexpr bf16 kUntouched = {0xFFFF};  // a NaN that no sum is

template <class T>
std::vector<T> Read(const void* from, size_t bytes, Device& device) {
  std::vector<T> values(bytes / sizeof(T));
  device.Copy(values.data(), from, bytes);
  device.Synchronize();
  return values;
}

// d, as pixels of some channels.
struct Written {
  explicit Written(const ConvolutionProblem& p)
      : pixels(p.n * p.out_h() * p.out_w()),
        channels(p.k),
        pitch(p.PitchOfY()),
        products(p.kernel * p.kernel * p.c) {
    if (p.pass != ConvolutionProblem::Pass::kBackwardData) return;
    pixels = p.n * p.h * p.w;
    channels = p.c;
    pitch = p.PitchOfX();
    products = p.kernel * p.kernel * p.k;
  }
  int64_t pixels, channels, pitch;
  int64_t products;  // that make an element
};

// One unit in the last place of bf16; and what sums of operands up to 1 may differ by near 0, a small part of
// their usual size, which is the root of the number of products.
bool IsClose(float actual, float expected, int64_t products) {
  const float relative = std::ldexp(1.0f, -7), absolute = std::ldexp(static_cast<float>(products), -16);
  return std::abs(actual - expected) <= relative * std::abs(expected) + absolute;  // false for a NaN
}

// What was computed beside what should have been.
struct Comparison {
  const Written& d;
  const std::vector<bf16>& actual;
  const std::vector<bf16>& expected;  // before the mask
  const std::vector<bf16>& mask;      // empty: none
  int64_t mask_pitch;

  // Of `channel` of the pixels in memory, those of other slices included.
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
  std::atomic<int64_t> wrong = count;  // one of them, if it is less
  ParallelFor(count, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (!c.Agrees(i / c.d.pitch, i % c.d.pitch)) wrong = i;
    }
  });
  if (wrong == count) return absl::OkStatus();
  const int64_t pixel = wrong / c.d.pitch, channel = wrong % c.d.pitch;
  if (channel >= c.d.channels) {
    return absl::DataLossError(absl::StrCat("writes beyond its channels, at pixel ", pixel));
  }
  return absl::DataLossError(absl::StrCat("at pixel ", pixel, ", channel ", channel, ": ",
                                          ToFloat(c.actual[static_cast<size_t>(wrong)]),
                                          ", and the library has ", c.Expected(pixel, channel)));
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
    return absl::DataLossError(
        absl::StrCat("the sum of channel ", channel, ": ", sums[channel], ", not ", expected[channel]));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ConvolutionCheck::operator()(Algorithm& own, const PlanOperands& operands) {
  if (expected_.empty()) {
    if (absl::Status status = RunLibrary(operands); !status.ok()) return status;
  }
  const OperandSizes sizes = SizesOf(problem_);
  const std::vector<bf16> untouched(sizes.d / sizeof(bf16), kUntouched);
  device_.Copy(operands.d, untouched.data(), sizes.d);
  if (absl::Status status = Run(own, operands); !status.ok()) return status;
  const Written d(problem_);
  const std::vector<bf16> actual = Read<bf16>(operands.d, sizes.d, device_),
                          mask = Read<bf16>(operands.mask, sizes.mask, device_);
  absl::Status status = CompareElements({d, actual, expected_, mask, problem_.PitchOfMask()});
  if (!status.ok() || !problem_.mask_dx) return status;
  return CompareSums(d, actual, Read<float>(operands.sums, sizes.sums, device_));
}

absl::Status ConvolutionCheck::RunLibrary(const PlanOperands& operands) {
  if (library_ == nullptr) return absl::NotFoundError("no library to compare with");
  absl::Status status = library_->Ask();
  for (size_t i = 0; status.ok() && i < library_->size(); ++i) {
    const absl::StatusOr<std::unique_ptr<Algorithm>> algorithm = library_->Build(i);
    if (!algorithm.ok() || !Run(**algorithm, operands).ok()) continue;
    expected_ = Read<bf16>(operands.d, SizesOf(problem_).d, device_);
    return absl::OkStatus();
  }
  return absl::NotFoundError("no library algorithm to compare with runs");
}

absl::Status ConvolutionCheck::Run(Algorithm& algorithm, PlanOperands operands) {
  const Buffer workspace = device_.Allocate(algorithm.workspace_bytes());
  if (workspace.bytes() < algorithm.workspace_bytes()) return absl::ResourceExhaustedError("no memory");
  operands.workspace = workspace.data();
  const absl::Status status = algorithm.Enqueue(operands, device_.stream());
  device_.Synchronize();
  return status;
}

}  // namespace deeper
