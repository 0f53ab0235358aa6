// cp.async, ldmatrix and mma.sync as the PTX ISA describes them. A vector replaces shared memory.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <random>
#include <utility>
#include <vector>

#include "kernels/base/bf16.h"

namespace deeper::conv {

constexpr int kLanes = 32;

using Shared = std::vector<unsigned char>;
constexpr uint32_t kBase = 3 * 1024;        // start of the block's shared memory
constexpr uint16_t kPoison = 0x7FC1;        // NaN: makes unwritten memory visible
constexpr unsigned char kUnwritten = 0xFF;  // the same in shared memory

inline float Read(const Shared& shared, uint32_t address) {
  bf16 value;
  std::memcpy(&value, &shared.at(address - kBase), sizeof value);
  return ToFloat(value);
}

// The machine of CopyAndMultiply (conv_pipeline.h) for all threads of a block at once. Copies land as late as
// the waits allow. Until then, the stage and the destinations of copies are poisoned.
//   copy(step, stage, copies)  calls copies.Start or writes to the stage; multiply(step, stage)
template <class CopyStep, class MultiplyStep>
class CopyEmulation {
 public:
  CopyEmulation(Shared& shared, int stage_bytes, const CopyStep& copy, const MultiplyStep& multiply)
      : shared_(shared), stage_bytes_(stage_bytes), copy_(copy), multiply_(multiply) {}

  template <size_t kCount>
  void Start(int to, const std::array<bf16, kCount>& values) {
    Started copy = {to, sizeof values, {}};
    std::copy(values.begin(), values.end(), copy.values.begin());
    std::fill_n(shared_.begin() + to, copy.bytes, kUnwritten);
    open_.push_back(copy);
  }

  void Copy(int step, int stage) {
    std::fill_n(shared_.begin() + stage * stage_bytes_, stage_bytes_, kUnwritten);
    copy_(step, stage, *this);
  }
  void CommitCopies() { groups_.push_back(std::exchange(open_, {})); }
  template <int kPending>
  void WaitForCopies() {
    for (; groups_.size() > kPending; groups_.pop_front()) {
      for (const Started& copy : groups_.front())
        std::memcpy(&shared_.at(static_cast<size_t>(copy.to)), copy.values.data(), copy.bytes);
    }
  }
  void Synchronize() const {}
  void Multiply(int step, int stage) { multiply_(step, stage); }

 private:
  struct Started {
    int to;
    size_t bytes;
    std::array<bf16, 8> values;
  };

  Shared& shared_;
  const int stage_bytes_;
  const CopyStep& copy_;
  const MultiplyStep& multiply_;
  std::vector<Started> open_;
  std::deque<std::vector<Started>> groups_;
};

using Matrices = std::array<std::array<std::array<float, 2>, 4>, kLanes>;  // four matrices, by lane

// PTX ISA, "ldmatrix": lanes 8 m to 8 m + 7 give the row addresses of matrix m. Lane l receives elements 2 (l
// % 4) and the next one of row l / 4, or of column l / 4 if transposed.
inline Matrices LoadMatrices(const Shared& shared, bool transposed,
                             const std::array<uint32_t, kLanes>& addresses) {
  Matrices registers;
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int m = 0; m < 4; ++m) {
      for (int i = 0; i < 2; ++i) {
        const int row = transposed ? lane % 4 * 2 + i : lane / 4,
                  column = transposed ? lane / 4 : lane % 4 * 2 + i;
        registers[lane][m][i] = Read(shared, addresses[m * 8 + row] + column * 2);
      }
    }
  }
  return registers;
}

// PTX ISA, "Matrix fragments for mma.m16n8k16": the index k of element i of register r, and the row of a.
inline int DepthOfA(int lane, int r, int i) {
  return lane % 4 * 2 + i + (r >= 2 ? 8 : 0);
}
inline int RowOfA(int lane, int r) {
  return lane / 4 + (r % 2 == 1 ? 8 : 0);
}

using Fragment = std::array<std::array<float, 4>, kLanes>;  // of 16 rows and 8 columns
inline void Multiply(Fragment& acc, const Matrices& a, const Matrices& b, int first_of_b) {
  float am[16][16], bm[16][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 2; ++i) {
      for (int r = 0; r < 4; ++r) am[RowOfA(lane, r)][DepthOfA(lane, r, i)] = a[lane][r][i];
      for (int r = 0; r < 2; ++r) bm[lane % 4 * 2 + i + r * 8][lane / 4] = b[lane][first_of_b + r][i];
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + (i >= 2 ? 8 : 0), column = lane % 4 * 2 + i % 2;
      for (int k = 0; k < 16; ++k) acc[lane][i] += am[row][k] * bm[k][column];
    }
  }
}

// The accumulators of a warp: several times 16 pixels by several times 8 columns.
using Accumulators = std::vector<std::vector<Fragment>>;
inline Accumulators MakeAccumulators(int fragments, int blocks) {
  return Accumulators(static_cast<size_t>(fragments),
                      std::vector<Fragment>(static_cast<size_t>(blocks), Fragment{}));
}

// Small integers, so that sums of their products are exact in any order.
inline std::vector<bf16> WholeNumbers(size_t count, std::minstd_rand& generator) {
  std::uniform_int_distribution<int> uniform(-2, 2);
  std::vector<bf16> numbers(count);
  for (bf16& number : numbers) number = ToBf16(static_cast<float>(uniform(generator)));
  return numbers;
}

// Number `index` of a sequence, from a hash of it (splitmix64): from -2 to 2, or a real one from -1 to 1.
inline bf16 HashedNumber(uint64_t seed, size_t index, bool whole) {
  uint64_t bits = (index + 1) * 0x9E3779B97F4A7C15 + seed;
  bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9;
  bits = (bits ^ bits >> 27) * 0x94D049BB133111EB;
  bits ^= bits >> 31;
  if (whole) return ToBf16(static_cast<float>(static_cast<int>(bits % 5) - 2));
  return ToBf16(static_cast<float>(static_cast<int32_t>(bits >> 32)) * 0x1p-31f);
}

}  // namespace deeper::conv
