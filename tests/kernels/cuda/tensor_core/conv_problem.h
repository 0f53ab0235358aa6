// Convolutions of stride 1 with "same" padding, for tests.
#pragma once

#include <cstdint>

#include "kernels/cuda/plans/cuda_problem.h"

namespace deeper::conv {

inline ConvolutionProblem Problem(ConvolutionProblem::Pass pass, int64_t n, int64_t h, int64_t w, int64_t c,
                                  int64_t k, int64_t kernel) {
  ConvolutionProblem p = {.pass = pass, .n = n, .h = h, .w = w, .c = c, .k = k, .kernel = kernel};
  p.pad = kernel / 2;
  return p;
}

}  // namespace deeper::conv
