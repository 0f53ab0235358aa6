// The operations of a block's threads, as the loops of conv_pipeline.h issue them: recorded on the host, for
// pipeline_model.h and block_emulation.h.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cuda/tensor_core/conv_pipeline.h"

namespace deeper::conv {

struct Operation {
  enum Kind {
    kInitBarrier,
    kPublishBarriers,
    kWait,
    kArrive,
    kExpect,  // with an arrival
    kLoadPixels,
    kLoadWeights,
    kBeginMultiply,
    kMultiply,
    kCommitMultiply,
    kWaitForMultiply,
  };
  Kind kind;
  uint32_t barrier = 0;    // its address
  int number = 0;          // arrivals, parity, bytes, or groups that may run
  uint32_t to = 0;         // address of a copy
  PixelBox pixels = {};    // kLoadPixels
  Step step = {};          // kLoadPixels
  WeightBox weights = {};  // kLoadWeights
  uint64_t a = 0, b = 0;   // descriptors
};

// The machine of all loops for sm_90.
struct Recorder {
  bool leader = true;
  std::vector<Operation> operations = {};

  bool IsLeader() const { return leader; }
  void InitBarrier(uint32_t barrier, int arrivals) {
    operations.push_back({.kind = Operation::kInitBarrier, .barrier = barrier, .number = arrivals});
  }
  void PublishBarriers() { operations.push_back({.kind = Operation::kPublishBarriers}); }
  void Wait(uint32_t barrier, int parity) {
    operations.push_back({.kind = Operation::kWait, .barrier = barrier, .number = parity});
  }
  void Arrive(uint32_t barrier) { operations.push_back({.kind = Operation::kArrive, .barrier = barrier}); }
  void ArriveAndExpect(uint32_t barrier, int bytes) {
    operations.push_back({.kind = Operation::kExpect, .barrier = barrier, .number = bytes});
  }
  void LoadPixels(uint32_t to, const PixelBox& box, const Step& step, uint32_t barrier) {
    operations.push_back(
        {.kind = Operation::kLoadPixels, .barrier = barrier, .to = to, .pixels = box, .step = step});
  }
  void LoadWeights(uint32_t to, const WeightBox& box, uint32_t barrier) {
    operations.push_back({.kind = Operation::kLoadWeights, .barrier = barrier, .to = to, .weights = box});
  }
  void BeginMultiply() { operations.push_back({.kind = Operation::kBeginMultiply}); }
  void Multiply(uint64_t a, uint64_t b) {
    operations.push_back({.kind = Operation::kMultiply, .a = a, .b = b});
  }
  void CommitMultiply() { operations.push_back({.kind = Operation::kCommitMultiply}); }
  template <int kPending>
  void WaitForMultiply() {
    operations.push_back({.kind = Operation::kWaitForMultiply, .number = kPending});
  }
};

// Everything that a block of ConvSm90 does in its pipeline.
struct Recording {
  bool backward = false;
  int columns = 0, across = 0;  // of the kernel
  int stages = 0, stage_bytes = 0;
  uint32_t base = 0, sums = 0;           // addresses of the stages and of what follows the barriers
  std::vector<Operation> barriers = {};  // of the thread that creates them
  std::vector<Operation> loader = {};    // of the lane that loads
  std::vector<Operation> warpgroups[kWarpgroups] = {};  // of the leaders of their warps
  std::vector<Operation> others = {};                   // of the other lanes of warpgroup 0

  // The bytes of a copy: those of the box in its tensor map.
  int BytesOf(const Operation& copy) const {
    const int rows = copy.kind == Operation::kLoadPixels ? StepPixels(across) : backward ? kBoxRows : columns;
    return rows * kRowBytes;
  }
};

template <bool kBackward, int kColumns, int kAcross>
Recording Record(const Gemm& g, const Tile& tile, uint32_t base) {
  using At = Sm90Layout<kBackward, kColumns, kAcross>;
  const At at = {base};
  Recording r = {kBackward, kColumns, kAcross, At::kStages, At::kStageBytes, base, base + At::kSums};
  const auto record = [](const auto& loop, bool leader = true) {
    Recorder recorder = {leader};
    loop(recorder);
    return recorder.operations;
  };
  r.barriers = record([&](Recorder& machine) { InitBarriers(at, machine); });
  r.loader = record([&](Recorder& machine) { FillStages(g, tile, at, machine); });
  for (int i = 0; i < kWarpgroups; ++i) {
    r.warpgroups[i] = record([&](Recorder& machine) { MultiplyStages(g, at, i, machine); });
  }
  r.others = record([&](Recorder& machine) { MultiplyStages(g, at, 0, machine); }, false);
  return r;
}

}  // namespace deeper::conv
