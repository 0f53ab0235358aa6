// What all library backends must know of a problem: its words, its size, its operands.
#pragma once

#include <cstddef>
#include <string>

#include "kernels/cuda_device.h"

namespace deeper {

// Everything there is to know, for messages and as a key: two problems are equal if and only if their words
// are.
std::string ToString(const ConvolutionProblem& problem);
std::string ToString(const MatmulProblem& problem);

Launch LaunchOf(const ConvolutionProblem& problem);
Launch LaunchOf(const MatmulProblem& problem);

// The arguments of CudaPlan::Run. bias is null where the problem has none.
struct Operands {
  const void* a = nullptr;
  const void* b = nullptr;
  const void* bias = nullptr;
  void* d = nullptr;
  void* workspace = nullptr;
  friend bool operator==(const Operands&, const Operands&) = default;
};

// How long and of what type the operands are, from their first byte to their last.
struct OperandSizes {
  size_t a = 0, b = 0, bias = 0, d = 0;  // bytes; bias 0 where there is none
  DType in = DType::kF32;                // type of a and b
  DType out = DType::kF32;               // type of bias and d
};
OperandSizes SizesOf(const ConvolutionProblem& problem);
OperandSizes SizesOf(const MatmulProblem& problem);

}  // namespace deeper
