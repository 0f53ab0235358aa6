// The operations of a block's threads, as the loops of conv_pipeline.h issue them: recorded on the host, for
// pipeline_model.h and block_emulation.h.
#pragma once

#include <cstdint>
#include <functional>
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
    kLoadWeights,  // or the gradients of a pixel's outputs
    kBeginMultiply,
    kMultiply,
    kCommitMultiply,
    kWaitForMultiply,
  };
  Kind kind;
  uint32_t barrier = 0;    // its address
  int number = 0;          // arrivals, parity, bytes, groups that may run, or which sums
  uint32_t to = 0;         // address of a copy
  PixelBox pixels = {};    // of a copy other than of weights
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
  void LoadGradients(uint32_t to, const PixelBox& box, uint32_t barrier) {
    operations.push_back({.kind = Operation::kLoadWeights, .barrier = barrier, .to = to, .pixels = box});
  }
  void BeginMultiply() { operations.push_back({.kind = Operation::kBeginMultiply}); }
  void Multiply(int sums, uint64_t a, uint64_t b) {
    operations.push_back({.kind = Operation::kMultiply, .number = sums, .a = a, .b = b});
  }
  void CommitMultiply() { operations.push_back({.kind = Operation::kCommitMultiply}); }
  template <int kPending>
  void WaitForMultiply() {
    operations.push_back({.kind = Operation::kWaitForMultiply, .number = kPending});
  }
};

// Everything that a block does in its pipeline.
struct Recording {
  int pixel_rows = 0, weight_rows = 0;  // of 128 bytes, of the boxes of kLoadPixels and kLoadWeights
  int stages = 0, stage_bytes = 0;
  uint32_t base = 0, end = 0;  // addresses of the stages and of what follows the barriers
  int steps = 0;
  std::function<int(const Operation&)> step_of = {};    // the step whose data a copy brings
  std::vector<Operation> barriers = {};                 // of the thread that creates them
  std::vector<Operation> loader = {};                   // of the lane that loads
  std::vector<Operation> warpgroups[kWarpgroups] = {};  // of the leaders of their warps
  std::vector<Operation> others = {};                   // of the other lanes of warpgroup 0

  // The bytes of a copy: those of the box in its tensor map.
  int BytesOf(const Operation& copy) const {
    return (copy.kind == Operation::kLoadPixels ? pixel_rows : weight_rows) * kRowBytes;
  }
};

// fill(at, machine) and multiply(at, warpgroup, machine) are the loops.
template <class Layout, class Fill, class Multiply>
Recording RecordLoops(uint32_t base, const Fill& fill, const Multiply& multiply) {
  const Layout at = {base};
  Recording r = {.stages = Layout::kStages,
                 .stage_bytes = Layout::kStageBytes,
                 .base = base,
                 .end = base + Layout::kRingBytes};
  const auto record = [](const auto& loop, bool leader = true) {
    Recorder recorder = {leader};
    loop(recorder);
    return recorder.operations;
  };
  r.barriers = record([&](Recorder& machine) { InitBarriers(at, machine); });
  r.loader = record([&](Recorder& machine) { fill(at, machine); });
  for (int i = 0; i < kWarpgroups; ++i) {
    r.warpgroups[i] = record([&](Recorder& machine) { multiply(at, i, machine); });
  }
  r.others = record([&](Recorder& machine) { multiply(at, 0, machine); }, false);
  return r;
}

// Of ConvSm90.
template <bool kBackward, int kColumns, int kAcross>
Recording Record(const Gemm& g, const Tile& tile, uint32_t base) {
  using At = Sm90Layout<kBackward, kColumns, kAcross>;
  Recording r = RecordLoops<At>(
      base, [&](const At& at, Recorder& machine) { FillStages(g, tile, at, machine); },
      [&](const At& at, int warpgroup, Recorder& machine) { MultiplyStages(g, at, warpgroup, machine); });
  r.pixel_rows = StepPixels(kAcross);
  r.weight_rows = kBackward ? kBoxRows : kColumns;
  r.steps = g.steps();
  r.step_of = [g](const Operation& copy) {
    const int per_tap = CeilDiv(g.depth, kStepDepth);
    if (copy.kind == Operation::kLoadPixels) {
      return (copy.step.row * g.kernel + copy.step.column) / g.across * per_tap +
             copy.pixels.channel / kStepDepth;
    }
    const int tap = g.backward ? g.taps() - 1 - copy.weights.tap : copy.weights.tap;
    return tap / g.across * per_tap + (g.backward ? copy.weights.filter : copy.weights.channel) / kStepDepth;
  };
  return r;
}

// Of WeightGradientSm90.
template <int kChannels>
Recording RecordDw(const Gemm& g, const DwTile& tile, uint32_t base) {
  using At = DwLayout<kChannels>;
  Recording r = RecordLoops<At>(
      base, [&](const At& at, Recorder& machine) { FillDwStages(g, tile, at, machine); },
      [&](const At& at, int warpgroup, Recorder& machine) {
        MultiplyDwStages(tile, at, warpgroup, machine);
      });
  r.pixel_rows = StepPixels(kDwTaps);
  r.weight_rows = kTilePixels;
  r.steps = tile.steps;
  r.step_of = [g, tile](const Operation& copy) {
    const int pad = copy.kind == Operation::kLoadPixels ? g.pad() : 0;
    const int row = copy.pixels.image * g.height + copy.pixels.row + pad;
    return (row * g.row_places() + copy.pixels.column + pad - tile.first_place) / kTilePixels;
  };
  return r;
}

}  // namespace deeper::conv
