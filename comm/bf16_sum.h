// The arithmetic of a sum over ranks that travels in bf16, with error feedback (Seide et al., "1-bit
// stochastic gradient descent", 2014; both ways as in Tang et al., "DoubleSqueeze", 2019): what rounding
// leaves out of a sum is kept in fp32 and added to the next one, so that over many sums nothing is lost.
//
//   1. every rank rounds data + residual and keeps the rest            (RoundWithFeedback)
//   2. the owner of a part of the data adds up all ranks' in fp32, in rank order, and rounds the sum; it
//   keeps
//      the rest in its own residual                                    (SumParts)
//   3. every rank gets the rounded sums                                (Widen)
#pragma once

#include <cstddef>
#include <span>

#include "kernels/base/bf16.h"

namespace deeper {

// What each rank owns of `count` elements.
struct OwnedPart {
  OwnedPart(size_t count, int ranks, int rank)
      : begin(count * static_cast<size_t>(rank) / static_cast<size_t>(ranks)),
        end(count * static_cast<size_t>(rank + 1) / static_cast<size_t>(ranks)) {}
  size_t size() const { return end - begin; }
  size_t begin, end;
};

// wire = bf16(data + residual); residual = what that left out.
void RoundWithFeedback(const float* data, float* residual, bf16* wire, size_t count);
// sum = bf16(parts[0] + parts[1] + ...); residual += what that left out. `sum` may be one of the parts.
void SumParts(std::span<const bf16* const> parts, float* residual, bf16* sum, size_t count);
void Widen(const bf16* wire, float* data, size_t count);

}  // namespace deeper
