#include "kernels/cuda_problem.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

namespace deeper {
namespace {

// Launches name themselves by static strings, of which there are a handful.
const char* Intern(std::string name) {
  static auto& names = *new std::set<std::string>;
  return names.insert(std::move(name)).first->c_str();
}

const char* NameOf(ConvolutionProblem::Pass pass) {
  switch (pass) {
    case ConvolutionProblem::Pass::kForward:
      return "forward";
    case ConvolutionProblem::Pass::kBackwardData:
      return "backward data";
    case ConvolutionProblem::Pass::kBackwardWeights:
      return "backward weights";
  }
  return "?";
}

std::string Epilogue(bool bias, bool relu) {
  return absl::StrCat(bias ? " + bias" : "", relu ? " + relu" : "");
}

size_t Bytes(int64_t elements, DType dtype) {
  return static_cast<size_t>(elements) * SizeOf(dtype);
}

// Of a matrix as stored, the last row without what follows it.
size_t Bytes(int64_t rows, int64_t columns, int64_t stride, DType dtype) {
  return Bytes((rows - 1) * stride + columns, dtype);
}

int64_t Total(const OperandSizes& sizes) {
  return static_cast<int64_t>(sizes.a + sizes.b + sizes.bias + sizes.d);
}

}  // namespace

std::string ToString(const ConvolutionProblem& p) {
  return absl::StrCat("convolution ", NameOf(p.pass), " ", NameOf(p.dtype), ": x ", p.n, "x", p.h, "x", p.w,
                      "x", p.c, " (NHWC), ", p.k, " filters ", p.kernel, "x", p.kernel, ", stride ", p.stride,
                      ", pad ", p.pad, Epilogue(p.bias, p.relu));
}

std::string ToString(const MatmulProblem& p) {
  return absl::StrCat("matmul ", NameOf(p.in), " to ", NameOf(p.out), ": m ", p.m, ", n ", p.n, ", k ", p.k,
                      ", a ", p.transpose_a ? "transposed, " : "", "stride ", p.a_stride, ", b ",
                      p.transpose_b ? "transposed, " : "", "stride ", p.b_stride, ", d stride ", p.d_stride,
                      Epilogue(p.bias, p.relu));
}

Launch LaunchOf(const ConvolutionProblem& p) {
  const std::string name =
      absl::StrCat("conv ", p.kernel, "x", p.kernel, " ", NameOf(p.pass), Epilogue(p.bias, p.relu));
  return {Intern(name), Total(SizesOf(p)), p.macs()};
}

Launch LaunchOf(const MatmulProblem& p) {
  const std::string name =
      absl::StrCat("matmul ", p.transpose_a ? "t" : "n", p.transpose_b ? "t" : "n", Epilogue(p.bias, p.relu));
  const size_t bytes = Bytes(p.m * p.k + p.k * p.n, p.in) + Bytes(p.m * p.n + (p.bias ? p.n : 0), p.out);
  return {Intern(name), static_cast<int64_t>(bytes), p.macs()};
}

OperandSizes SizesOf(const ConvolutionProblem& p) {
  const size_t x = Bytes(p.n * p.h * p.w * p.c, p.dtype);
  const size_t w = Bytes(p.k * p.kernel * p.kernel * p.c, p.dtype);
  const size_t y = Bytes(p.n * p.out_h() * p.out_w() * p.k, p.dtype);
  const size_t bias = p.bias ? Bytes(p.k, p.dtype) : 0;
  switch (p.pass) {
    case ConvolutionProblem::Pass::kForward:
      return {x, w, bias, y, p.dtype, p.dtype};
    case ConvolutionProblem::Pass::kBackwardData:
      return {y, w, bias, x, p.dtype, p.dtype};
    case ConvolutionProblem::Pass::kBackwardWeights:
      return {x, y, bias, w, p.dtype, p.dtype};
  }
  return {};
}

OperandSizes SizesOf(const MatmulProblem& p) {
  const size_t a = p.transpose_a ? Bytes(p.k, p.m, p.a_stride, p.in) : Bytes(p.m, p.k, p.a_stride, p.in);
  const size_t b = p.transpose_b ? Bytes(p.n, p.k, p.b_stride, p.in) : Bytes(p.k, p.n, p.b_stride, p.in);
  return {a, b, p.bias ? Bytes(p.n, p.out) : 0, Bytes(p.m, p.n, p.d_stride, p.out), p.in, p.out};
}

}  // namespace deeper
