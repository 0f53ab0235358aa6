#include "kernels/conv_check.h"

#include <cmath>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "kernels/cuda_problem.h"

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

absl::Status CompareElements(const Written& d, const std::vector<bf16>& actual,
                             const std::vector<bf16>& expected) {
  for (size_t i = 0; i < actual.size(); ++i) {
    const auto pixel = static_cast<int64_t>(i) / d.pitch, channel = static_cast<int64_t>(i) % d.pitch;
    if (channel >= d.channels) {
      if (actual[i].bits == kUntouched.bits) continue;
      return absl::DataLossError(absl::StrCat("writes beyond its channels, at pixel ", pixel));
    }
    const float own = ToFloat(actual[i]), library = ToFloat(expected[i]);
    if (IsClose(own, library, d.products)) continue;
    return absl::DataLossError(absl::StrCat("at pixel ", pixel, ", channel ", channel, ": ", own,
                                            ", and the library has ", library));
  }
  return absl::OkStatus();
}

absl::Status CompareSums(const Written& d, const std::vector<bf16>& actual, const std::vector<float>& sums) {
  const double rounding = std::ldexp(1.0, -18);
  for (int64_t channel = 0; channel < d.channels; ++channel) {
    double sum = 0, sizes = 0;
    for (int64_t pixel = 0; pixel < d.pixels; ++pixel) {
      const float value = ToFloat(actual[static_cast<size_t>(pixel * d.pitch + channel)]);
      sum += value;
      sizes += std::abs(value);
    }
    const float own = sums[static_cast<size_t>(channel)];
    if (std::abs(own - sum) <= rounding * sizes) continue;
    return absl::DataLossError(absl::StrCat("the sum of channel ", channel, ": ", own, ", not ", sum));
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
  const std::vector<bf16> actual = Read<bf16>(operands.d, sizes.d, device_);
  if (!problem_.mask_dx) return CompareElements(d, actual, expected_);

  const std::vector<bf16> mask = Read<bf16>(operands.mask, sizes.mask, device_);
  std::vector<bf16> masked = expected_;
  for (size_t i = 0; i < masked.size(); ++i) {
    const auto pixel = static_cast<int64_t>(i) / d.pitch, channel = static_cast<int64_t>(i) % d.pitch;
    if (channel >= d.channels) continue;
    if (!(ToFloat(mask[static_cast<size_t>(pixel * problem_.PitchOfMask() + channel)]) > 0)) masked[i] = {0};
  }
  absl::Status status = CompareElements(d, actual, masked);
  if (status.ok()) status = CompareSums(d, actual, Read<float>(operands.sums, sizes.sums, device_));
  return status;
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
  const absl::Status status = algorithm.Enqueue(operands);
  device_.Synchronize();
  return status;
}

}  // namespace deeper
