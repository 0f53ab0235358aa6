// Properties of a problem for all library backends: its description, its launch, its operands.
#pragma once

#include <cstddef>
#include <string>

#include "kernels/cuda/base/cuda_device.h"

namespace deeper {

// The full description, for messages and as a key. Two problems are equal if and only if their descriptions
// are.
std::string ToString(const ConvolutionProblem& problem);
std::string ToString(const MatmulProblem& problem);

// Includes all optional outputs of the problem.
Launch LaunchOf(const ConvolutionProblem& problem);
Launch LaunchOf(const MatmulProblem& problem);

// The length and type of the operands, from their first byte to their last.
struct OperandSizes {
  size_t a = 0, b = 0, d = 0;                       // bytes
  size_t bias = 0, mask = 0, sums = 0, argmax = 0;  // bytes; 0 if absent
  DType in = DType::kF32;                           // type of a, b and mask
  DType out = DType::kF32;                          // type of d, and of a bias that is not wide
};
OperandSizes SizesOf(const ConvolutionProblem& problem);
OperandSizes SizesOf(const MatmulProblem& problem);

}  // namespace deeper
