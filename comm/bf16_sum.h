// The arithmetic of a sum over ranks that is transferred in bf16, with error feedback (Seide et al., "1-bit
// stochastic gradient descent", 2014; in both directions as in Tang et al., "DoubleSqueeze", 2019). Rounding
// errors of a sum are kept in fp32 and added to the next one, so that nothing is lost over many sums.
//
//   1. every rank rounds data + residual and keeps the error           (RoundWithFeedback)
//   2. the owner of a part of the data adds the parts of all ranks in fp32, in rank order,
//      rounds the sum, and keeps the error in its own residual         (SumParts)
//   3. every rank receives the rounded sums                            (Widen)
#pragma once

#include <cstddef>
#include <span>

#include "kernels/base/bf16.h"

namespace deeper {

// The part of `count` elements that a rank owns.
struct OwnedPart {
  OwnedPart(size_t count, int ranks, int rank)
      : begin(count * static_cast<size_t>(rank) / static_cast<size_t>(ranks)),
        end(count * static_cast<size_t>(rank + 1) / static_cast<size_t>(ranks)) {}
  size_t size() const { return end - begin; }
  size_t begin, end;
};

// wire = bf16(data + residual); residual = the rounding error.
void RoundWithFeedback(const float* data, float* residual, bf16* wire, size_t count);
// sum = bf16(parts[0] + parts[1] + ...); residual += the rounding error. `sum` may be one of the parts.
void SumParts(std::span<const bf16* const> parts, float* residual, bf16* sum, size_t count);
void Widen(const bf16* wire, float* data, size_t count);

}  // namespace deeper
