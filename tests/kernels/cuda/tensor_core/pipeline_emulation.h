// Executes the recorded operations of a block (pipeline_recording.h) on data, in one order of
// those that the barriers allow: each thread runs until it must wait, and a copy lands only when all threads
// wait. From its start until then, its destination is poisoned. Products read at the end of their group.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "kernels/cuda/tensor_core/conv_tensor_map.h"
#include "tests/kernels/cuda/tensor_core/mma_emulation.h"
#include "tests/kernels/cuda/tensor_core/pipeline_recording.h"
#include "tests/kernels/cuda/tensor_core/wgmma_emulation.h"

namespace deeper::conv {

class RecordedBlock {
 public:
  explicit RecordedBlock(const Recording& recording)
      : r_(recording), shared_(static_cast<size_t>(r_.stages * r_.stage_bytes), kUnwritten) {}
  virtual ~RecordedBlock() = default;

  void Run() {
    for (const Operation& o : r_.barriers) {
      if (o.kind == Operation::kInitBarrier) barriers_[o.barrier] = {o.number, o.number};
    }
    std::array<Thread, 1 + kWarpgroups> threads = {Thread{&r_.loader, 0}};
    for (int i = 0; i < kWarpgroups; ++i) threads[1 + i] = {&r_.warpgroups[i], i};
    for (bool moved = true; moved;) {
      moved = false;
      for (Thread& thread : threads) {
        while (thread.next < thread.operations->size() &&
               Execute((*thread.operations)[thread.next], thread)) {
          ++thread.next;
          moved = true;
        }
      }
      if (moved || started_.empty()) continue;
      Land(*started_.front());
      started_.pop_front();
      moved = true;
    }
    for (const Thread& thread : threads) EXPECT_EQ(thread.next, thread.operations->size()) << "deadlock";
  }

 protected:
  static constexpr int kRows = 64, kMostColumns = 256;  // of wgmma

  // Writes the bytes of a copy, and returns their number.
  virtual uint64_t Copy(const Operation& copy) = 0;
  virtual void Multiply(const Operation& product, int warpgroup) = 0;

  // wgmma: adds a[row][k] b[k][column] to sums[row * columns + column]. Both are functions: an address.
  template <class A, class B>
  void MultiplySlice(const A& a, const B& b, int columns, float* sums) const {
    float all_b[kSliceDepth][kMostColumns];
    for (int k = 0; k < kSliceDepth; ++k) {
      for (int n = 0; n < columns; ++n) all_b[k][n] = Read(shared_, b(k, n));
    }
    for (int m = 0; m < kRows; ++m) {
      float* __restrict row = sums + m * columns;
      for (int k = 0; k < kSliceDepth; ++k) {
        const float value = Read(shared_, a(m, k));
        for (int n = 0; n < columns; ++n) row[n] += value * all_b[k][n];
      }
    }
  }
  static uint64_t BytesOf(const Im2colMap& map) { return map.pixels * map.channels * sizeof(bf16); }

  const Recording& r_;
  Shared shared_;

 private:
  struct Barrier {
    int arrivals, left;  // of each phase, of the present one
    int bytes = 0, parity = 0;
  };
  using Group = std::vector<const Operation*>;
  struct Thread {  // the lane that loads, or all warps of a warpgroup
    const std::vector<Operation>* operations = nullptr;
    int warpgroup = 0;
    size_t next = 0;
    Group open = {};
    std::deque<Group> groups = {};
  };

  // Returns whether the thread does not have to wait.
  bool Execute(const Operation& o, Thread& thread) {
    switch (o.kind) {
      case Operation::kWait:
        return barriers_.at(o.barrier).parity != o.number;
      case Operation::kArrive:
        for (int warp = 0; warp < kWarpgroupWarps; ++warp) Arrive(barriers_.at(o.barrier));
        break;
      case Operation::kExpect:
        barriers_.at(o.barrier).bytes += o.number;
        Arrive(barriers_.at(o.barrier));
        break;
      case Operation::kLoadPixels:
      case Operation::kLoadWeights:
        std::fill_n(shared_.begin() + static_cast<int>(o.to - kBase), r_.BytesOf(o), kUnwritten);
        started_.push_back(&o);
        break;
      case Operation::kMultiply:
        thread.open.push_back(&o);
        break;
      case Operation::kCommitMultiply:
        thread.groups.push_back(std::exchange(thread.open, {}));
        break;
      case Operation::kWaitForMultiply:
        for (; static_cast<int>(thread.groups.size()) > o.number; thread.groups.pop_front()) {
          for (const Operation* product : thread.groups.front()) Multiply(*product, thread.warpgroup);
        }
        break;
      default:
        break;
    }
    return true;
  }

  static void Arrive(Barrier& barrier) {
    EXPECT_GT(barrier.left, 0);
    --barrier.left;
    CompletePhase(barrier);
  }
  static void CompletePhase(Barrier& barrier) {
    if (barrier.left != 0 || barrier.bytes != 0) return;
    barrier.parity ^= 1;
    barrier.left = barrier.arrivals;
  }

  void Land(const Operation& o) {
    EXPECT_EQ(Copy(o), static_cast<uint64_t>(r_.BytesOf(o)));
    Barrier& barrier = barriers_.at(o.barrier);
    barrier.bytes -= r_.BytesOf(o);
    CompletePhase(barrier);
  }

  std::map<uint32_t, Barrier> barriers_;  // by address
  std::deque<const Operation*> started_;  // copies under way, the oldest first
};

// A block of ConvSm90.
class ConvolutionBlock final : public RecordedBlock {
 public:
  ConvolutionBlock(const Recording& recording, const Gemm& g, int columns, const Operands& operands)
      : RecordedBlock(recording),
        pixels_(PixelMap(g, nullptr)),
        weights_(WeightMap(g, columns, nullptr)),
        operands_(operands),
        backward_(g.backward),
        columns_(columns),
        sums_(static_cast<size_t>(kTilePixels * columns)) {}

  // [row][column] of the tile.
  const std::vector<float>& sums() const { return sums_; }

 private:
  uint64_t Copy(const Operation& o) override {
    if (o.kind == Operation::kLoadPixels) {
      LoadPixels(shared_, o.to, pixels_, operands_.in, o.pixels, o.step);
      return BytesOf(pixels_);
    }
    LoadWeights(shared_, o.to, weights_, operands_, o.weights);
    return weights_.box[0] * weights_.box[1] * weights_.box[2] * sizeof(bf16);
  }
  void Multiply(const Operation& o, int warpgroup) override {
    const MatrixDescriptor pixels(o.a), weights(o.b);
    MultiplySlice([&](int m, int k) { return pixels.Rows(m, k); },
                  [&](int k, int n) { return backward_ ? weights.Columns(n, k) : weights.Rows(n, k); },
                  columns_, &sums_[static_cast<size_t>(warpgroup * kRows * columns_)]);
  }

  const Im2colMap pixels_;
  const TiledMap weights_;
  const Operands& operands_;
  const bool backward_;
  const int columns_;
  std::vector<float> sums_;
};

// A block of WeightGradientSm90.
class DwBlock final : public RecordedBlock {
 public:
  using Elements = std::function<bf16(size_t)>;

  DwBlock(const Recording& recording, const Gemm& g, int channels, const Elements& x, const Elements& dy)
      : RecordedBlock(recording),
        x_map_(PixelMap(g, nullptr)),
        dy_map_(GradientMap(g, nullptr)),
        x_(x),
        dy_(dy),
        channels_(channels),
        sums_(static_cast<size_t>(kWarpgroups * kDwTaps * kTileFilters * channels)) {}

  // [warpgroup][tap][filter][channel] of the tile.
  const std::vector<float>& sums() const { return sums_; }

 private:
  uint64_t Copy(const Operation& o) override {
    const bool is_x = o.kind == Operation::kLoadPixels;
    const Im2colMap& map = is_x ? x_map_ : dy_map_;
    LoadPixels(shared_, o.to, map, is_x ? x_ : dy_, o.pixels, o.step);
    return BytesOf(map);
  }
  void Multiply(const Operation& o, int warpgroup) override {
    const MatrixDescriptor dy(o.a), x(o.b);
    MultiplySlice([&](int m, int k) { return dy.Columns(m, k); },
                  [&](int k, int n) { return x.Columns(n, k); }, channels_,
                  &sums_[static_cast<size_t>((warpgroup * kDwTaps + o.number) * kRows * channels_)]);
  }

  const Im2colMap x_map_, dy_map_;
  const Elements &x_, &dy_;
  const int channels_;
  std::vector<float> sums_;
};

}  // namespace deeper::conv
