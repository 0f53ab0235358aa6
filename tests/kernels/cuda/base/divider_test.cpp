#include "kernels/cuda/base/divider.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace deeper {
namespace {

TEST(Divider, AgreesWithDivision) {
  constexpr uint32_t kMost = kMostIndices - 1;
  std::vector<uint32_t> divisors = {kMost, kMost - 1, kMost / 2, kMost / 2 + 1, 65535, 65536, 65537};
  for (uint32_t divisor = 1; divisor <= 300; ++divisor) divisors.push_back(divisor);
  std::minstd_rand generator;
  std::uniform_int_distribution<uint32_t> any(0, kMost);
  for (int i = 0; i < 100; ++i) divisors.push_back(any(generator) / 2 + 1);
  for (const uint32_t divisor : divisors) {
    const Divider divider(divisor);
    ASSERT_EQ(divider.divisor(), divisor);
    // The multiples of the divisor and their neighbours are where a wrong factor shows.
    std::vector<uint32_t> numbers = {0, 1, kMost, kMost - 1, kMost / divisor * divisor};
    for (int i = 0; i < 200; ++i) {
      const uint32_t multiple = any(generator) / divisor * divisor;
      numbers.insert(numbers.end(), {multiple, multiple == 0 ? 0 : multiple - 1, any(generator)});
    }
    for (const uint32_t n : numbers) {
      ASSERT_EQ(divider.Quotient(n), n / divisor) << n << " / " << divisor;
      ASSERT_EQ(divider.Divide(n).rest, static_cast<int>(n % divisor)) << n << " / " << divisor;
    }
  }
}

}  // namespace
}  // namespace deeper
