// What all library backends must know of a problem: its words, its size, its operands.
#pragma once

#include <cstddef>
#include <string>

#include "kernels/cuda/base/cuda_device.h"

namespace deeper {

// Everything there is to know, for messages and as a key: two problems are equal if and only if their words
// are.
std::string ToString(const ConvolutionProblem& problem);
std::string ToString(const MatmulProblem& problem);

// With all that the problem can write.
Launch LaunchOf(const ConvolutionProblem& problem);
Launch LaunchOf(const MatmulProblem& problem);

// How long and of what type the operands are, from their first byte to their last.
struct OperandSizes {
  size_t a = 0, b = 0, d = 0;                       // bytes
  size_t bias = 0, mask = 0, sums = 0, argmax = 0;  // bytes; 0 where there is none
  DType in = DType::kF32;                           // type of a, b and mask
  DType out = DType::kF32;                          // type of d, and of a bias that is not wide
};
OperandSizes SizesOf(const ConvolutionProblem& problem);
OperandSizes SizesOf(const MatmulProblem& problem);

}  // namespace deeper
