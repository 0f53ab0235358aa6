// Whether reads of ldmatrix meet bank conflicts in shared memory.
#pragma once

#include <set>

#include "gtest/gtest.h"

namespace deeper::conv {

// offset(lane) is the byte that a lane reads 16 bytes from, in a warp. The 8 rows of a matrix, which 8 lanes
// in a row read at once, must be in different groups of 4 banks.
template <class Offset>
void ExpectNoBankConflicts(const Offset& offset) {
  constexpr int kLanesOfWarp = 32;
  for (int first = 0; first < kLanesOfWarp; first += 8) {
    std::set<int> groups;
    for (int lane = first; lane < first + 8; ++lane) {
      ASSERT_EQ(offset(lane) % 16, 0);
      groups.insert(offset(lane) / 16 % 8);
    }
    ASSERT_EQ(groups.size(), 8u);
  }
}

}  // namespace deeper::conv
