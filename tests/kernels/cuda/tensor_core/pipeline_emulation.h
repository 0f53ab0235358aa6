// Executes the recorded operations of a block of ConvSm90 (pipeline_recording.h) on data, in one order of
// those that the barriers allow: each thread runs until it must wait, and a copy lands only when all threads
// wait. From its start until then, its destination is poisoned. Products read at the end of their group.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
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
  RecordedBlock(const Recording& recording, const Gemm& g, const Operands& operands)
      : r_(recording),
        pixels_(PixelMap(g, nullptr)),
        weights_(WeightMap(g, recording.columns, nullptr)),
        operands_(operands),
        shared_(static_cast<size_t>(r_.stages * r_.stage_bytes), kUnwritten),
        sums_(static_cast<size_t>(kTilePixels * r_.columns)) {}

  // The sums of products, [row][column] of the tile.
  const std::vector<float>& Run() {
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
    return sums_;
  }

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
    if (o.kind == Operation::kLoadPixels) {
      LoadPixels(shared_, o.to, pixels_, operands_, o.pixels, o.step);
    } else {
      LoadWeights(shared_, o.to, weights_, operands_, o.weights);
    }
    const uint32_t elements = o.kind == Operation::kLoadPixels
                                  ? pixels_.pixels * pixels_.channels
                                  : weights_.box[0] * weights_.box[1] * weights_.box[2];
    EXPECT_EQ(static_cast<int>(elements * sizeof(bf16)), r_.BytesOf(o));
    Barrier& barrier = barriers_.at(o.barrier);
    barrier.bytes -= r_.BytesOf(o);
    CompletePhase(barrier);
  }

  // wgmma: 64 rows by all columns by a slice of depth.
  void Multiply(const Operation& o, int warpgroup) {
    constexpr int kRows = 64, kMostColumns = 256;
    const MatrixDescriptor pixels(o.a), weights(o.b);
    float b[kSliceDepth][kMostColumns];
    for (int k = 0; k < kSliceDepth; ++k) {
      for (int n = 0; n < r_.columns; ++n) {
        b[k][n] = Read(shared_, r_.backward ? weights.Columns(n, k) : weights.Rows(n, k));
      }
    }
    for (int m = 0; m < kRows; ++m) {
      float* __restrict sums = &sums_[static_cast<size_t>((warpgroup * kRows + m) * r_.columns)];
      for (int k = 0; k < kSliceDepth; ++k) {
        const float a = Read(shared_, pixels.Rows(m, k));
        for (int n = 0; n < r_.columns; ++n) sums[n] += a * b[k][n];
      }
    }
  }

  const Recording& r_;
  const Im2colMap pixels_;
  const TiledMap weights_;
  const Operands& operands_;
  Shared shared_;
  std::map<uint32_t, Barrier> barriers_;  // by address
  std::deque<const Operation*> started_;  // copies under way, the oldest first
  std::vector<float> sums_;
};

}  // namespace deeper::conv
