// Division by a number that is known at the launch of a kernel. A GPU has no instruction for division.
#pragma once

#include <cstdint>

#include "kernels/base/check.h"
#include "kernels/base/host_device.h"

namespace deeper {

constexpr int64_t kMostIndices = int64_t{1} << 31;  // of a kernel that divides with Divider

// Divides numbers below kMostIndices (Granlund and Montgomery 1994).
class Divider {
 public:
  Divider() = default;
  explicit Divider(int64_t divisor) : divisor_(static_cast<uint32_t>(divisor)) {
    DEEPER_CHECK(divisor > 0 && divisor < kMostIndices);
    while (uint64_t{1} << shift_ < divisor_) ++shift_;
    factor_ = static_cast<uint32_t>((((uint64_t{1} << shift_) - divisor_) << 32) / divisor_ + 1);
  }
  DEEPER_HD uint32_t Quotient(uint32_t n) const {
#ifdef __CUDA_ARCH__
    const uint32_t high = __umulhi(n, factor_);
#else
    const auto high = static_cast<uint32_t>(uint64_t{n} * factor_ >> 32);
#endif
    return (high + n) >> shift_;
  }
  DEEPER_HD uint32_t divisor() const {
    return divisor_;
  }

  struct Parts {
    int quotient, rest;
  };
  DEEPER_HD Parts Divide(uint32_t n) const {
    const uint32_t quotient = Quotient(n);
    return {static_cast<int>(quotient), static_cast<int>(n - quotient * divisor_)};
  }

 private:
  uint32_t divisor_ = 1, factor_ = 1, shift_ = 0;
};

}  // namespace deeper
