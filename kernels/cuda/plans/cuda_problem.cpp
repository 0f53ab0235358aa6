#include "kernels/cuda/plans/cuda_problem.h"

#include <mutex>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"

namespace deeper {
namespace {

// Launches need static names. There are few of them. Ranks may be threads.
const char* Intern(std::string name) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  static auto& names = *new std::set<std::string>;
  return names.insert(std::move(name)).first->c_str();
}

const char* NameOf(ConvolutionProblem::Pass pass) {
  constexpr const char* kNames[] = {"forward", "backward data", "backward weights"};
  return kNames[static_cast<size_t>(pass)];
}

std::string Epilogue(bool bias, bool relu) {
  return absl::StrCat(bias ? " + bias" : "", relu ? " + relu" : "");
}

const char* MaxPool(const ConvolutionProblem& p) {
  return p.pool_y ? " + max pool" : "";
}

// Returns "" if pixels are dense.
std::string Pitch(int64_t pitch, int64_t channels) {
  return pitch == channels ? "" : absl::StrCat(" in pixels of ", pitch);
}

size_t Bytes(int64_t elements, DType dtype) {
  return static_cast<size_t>(elements) * SizeOf(dtype);
}

// The size of a stored matrix, excluding the gap after the last row.
size_t Bytes(int64_t rows, int64_t columns, int64_t stride, DType dtype) {
  return Bytes((rows - 1) * stride + columns, dtype);
}

// The size of w or its gradient.
DType TypeOfWeights(const ConvolutionProblem& p) {
  return p.pass == ConvolutionProblem::Pass::kBackwardWeights ? p.dw_dtype() : p.dtype;
}

int64_t SumCount(const ConvolutionProblem& p) {
  if (p.mask_dx) return p.c;
  return p.pool_y && p.pass == ConvolutionProblem::Pass::kBackwardWeights ? p.k : 0;
}

size_t SizeOfArgmax(const ConvolutionProblem& p) {
  if (p.pool_y) return Bytes(p.n * p.y_h() * p.y_w() * p.k, DType::kU8);
  return p.pool_x && p.pass == ConvolutionProblem::Pass::kForward ? Bytes(p.n * p.h * p.w * p.c, DType::kU8)
                                                                  : 0;
}

}  // namespace

std::string ToString(const ConvolutionProblem& p) {
  return absl::StrCat("convolution ", NameOf(p.pass), " ", NameOf(p.dtype), ": x ", p.n, "x", p.h, "x", p.w,
                      "x", p.c, " (NHWC", Pitch(p.PitchOfX(), p.c), p.pool_x ? ", max pooled), " : "), ", p.k,
                      " filters ", p.kernel, "x", p.kernel, ", stride ", p.stride, ", pad ", p.pad,
                      p.PitchOfY() != p.k ? ", y" : "", Pitch(p.PitchOfY(), p.k), p.mask_dx ? ", masked" : "",
                      p.mask_dx ? Pitch(p.PitchOfMask(), p.c) : "", Epilogue(p.bias, p.relu),
                      p.bias && p.wide_bias ? " (fp32)" : "", MaxPool(p), p.wide_dw ? ", dw fp32" : "");
}

std::string ToString(const MatmulProblem& p) {
  return absl::StrCat("matmul ", NameOf(p.in), " to ", NameOf(p.out), ": m ", p.m, ", n ", p.n, ", k ", p.k,
                      ", a ", p.transpose_a ? "transposed, " : "", "stride ", p.a_stride, ", b ",
                      p.transpose_b ? "transposed, " : "", "stride ", p.b_stride, ", d stride ", p.d_stride,
                      Epilogue(p.bias, p.relu));
}

Launch LaunchOf(const ConvolutionProblem& p) {
  const std::string name =
      absl::StrCat(p.pool_x ? "max pool + " : "", "conv ", p.kernel, "x", p.kernel, " ", NameOf(p.pass),
                   p.mask_dx ? " + mask" : "", Epilogue(p.bias, p.relu), MaxPool(p));
  const int64_t x = p.n * p.h * p.w * p.c, y = p.n * p.y_h() * p.y_w() * p.k;
  const int64_t w = p.k * p.kernel * p.kernel * p.c;
  const size_t bytes = Bytes(x + y + (p.mask_dx ? x : 0), p.dtype) + Bytes(w, TypeOfWeights(p)) +
                       Bytes(p.bias ? p.k : 0, p.bias_dtype()) + Bytes(SumCount(p), DType::kF32) +
                       SizeOfArgmax(p);
  return {Intern(name), static_cast<int64_t>(bytes), p.macs()};
}

Launch LaunchOf(const MatmulProblem& p) {
  const std::string name =
      absl::StrCat("matmul ", p.transpose_a ? "t" : "n", p.transpose_b ? "t" : "n", Epilogue(p.bias, p.relu));
  const size_t bytes = Bytes(p.m * p.k + p.k * p.n, p.in) + Bytes(p.m * p.n + (p.bias ? p.n : 0), p.out);
  return {Intern(name), static_cast<int64_t>(bytes), p.macs()};
}

OperandSizes SizesOf(const ConvolutionProblem& p) {
  const int64_t pixels = p.n * p.h * p.w;
  const size_t x = Bytes(pixels, p.c, p.PitchOfX(), p.dtype);
  const size_t w = Bytes(p.k * p.kernel * p.kernel * p.c, TypeOfWeights(p));
  const size_t y = Bytes(p.n * p.y_h() * p.y_w(), p.k, p.PitchOfY(), p.dtype);
  OperandSizes sizes;
  std::tie(sizes.a, sizes.b, sizes.d) = std::tuple(x, w, y);
  if (p.pass == ConvolutionProblem::Pass::kBackwardData) std::swap(sizes.a, sizes.d);
  if (p.pass == ConvolutionProblem::Pass::kBackwardWeights) std::swap(sizes.b, sizes.d);
  sizes.in = p.dtype;
  sizes.out = TypeOfWeights(p);
  sizes.argmax = SizeOfArgmax(p);
  if (p.bias) sizes.bias = Bytes(p.k, p.bias_dtype());
  if (p.mask_dx) sizes.mask = Bytes(pixels, p.c, p.PitchOfMask(), p.dtype);
  sizes.sums = Bytes(SumCount(p), DType::kF32);
  return sizes;
}

OperandSizes SizesOf(const MatmulProblem& p) {
  const size_t a = p.transpose_a ? Bytes(p.k, p.m, p.a_stride, p.in) : Bytes(p.m, p.k, p.a_stride, p.in);
  const size_t b = p.transpose_b ? Bytes(p.n, p.k, p.b_stride, p.in) : Bytes(p.k, p.n, p.b_stride, p.in);
  OperandSizes sizes;
  std::tie(sizes.a, sizes.b, sizes.d) = std::tuple(a, b, Bytes(p.m, p.n, p.d_stride, p.out));
  sizes.bias = p.bias ? Bytes(p.n, p.out) : 0;
  sizes.in = p.in;
  sizes.out = p.out;
  return sizes;
}

}  // namespace deeper
