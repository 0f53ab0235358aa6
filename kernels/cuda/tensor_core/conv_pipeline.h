// The pipelines of the tensor core convolutions: the order of copies, products and waits. A machine, which is
// a template parameter, executes each operation. On the GPU it is one instruction (conv_sm80.cu,
// conv_sm90.cu, conv_dw_sm90.cu). On the host, the tests in tests/kernels/cuda/tensor_core/ record the
// operations, try all orders in which the threads of a block can execute them, and emulate them on data.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/base/host_device.h"
#include "kernels/cuda/base/codegen.h"
#include "kernels/cuda/tensor_core/conv_dw_tiling.h"
#include "kernels/cuda/tensor_core/conv_tiling.h"

namespace deeper::conv {

// ---- sm_80 --------------------------------------------------------------------------------------------

constexpr int kCopyStages = 3;

// The work of every thread. The machine's operations:
//   Copy(step, stage)      starts the thread's copies of a step
//   CommitCopies()         makes the copies since the last call a group
//   WaitForCopies<n>()     until at most n of the thread's groups are under way
//   Synchronize()          for all threads of the block
//   Multiply(step, stage)  reads the stage
template <int kStages, class Machine>
DEEPER_DEVICE void CopyAndMultiply(int steps, Machine& machine) {
  // Each step has one group of copies, empty after the last step, so that waiting can count groups.
  const auto copy = [&](int step) {
    if (step < steps) machine.Copy(step, step % kStages);
    machine.CommitCopies();
  };
  for (int step = 0; step < kStages - 1; ++step) copy(step);
  for (int step = 0; step < steps; ++step) {
    machine.template WaitForCopies<kStages - 2>();  // of this step, by this thread only
    machine.Synchronize();  // copies of all threads; all are also done with the stage that is filled next
    copy(step + kStages - 1);
    machine.Multiply(step, step % kStages);
  }
}

constexpr int kBandStages = 2;

// The work of every thread of the gradient of the first convolution, which computes half of its operands
// itself. Its steps are bands of two rows. The machine's further operations:
//   Spread(band, stage, half)    writes half of a band to the stage
//   Multiply(band, stage, half)  reads a row of the band
template <class Machine>
DEEPER_DEVICE void SpreadAndMultiply(int bands, Machine& machine) {
  for (int i = 0; i < 2 * (bands + 1); ++i) {
    const int band = i / 2, half = i % 2;
    if (half == 0) {
      machine.template WaitForCopies<0>();  // of the band before, by this thread only
      machine.Synchronize();                // of all threads; all are also done with the one before that
      if (band < bands) machine.Copy(band, band % kBandStages);
      machine.CommitCopies();
    }
    if (band < bands) machine.Spread(band, band % kBandStages, half);
    if (band > 0) machine.Multiply(band - 1, (band - 1) % kBandStages, half);
  }
}

// ---- sm_90 --------------------------------------------------------------------------------------------
// One lane fills the stages, two warpgroups multiply them. Each stage has two barriers. `full` completes when
// all its bytes have arrived, `empty` when all warps have read them. Round r of the stages waits for phase r
// of `full` and, to fill, for phase r - 1 of `empty`. A wait identifies its phase by the lowest bit.

constexpr int kWarpgroups = 2, kWarpgroupWarps = 4;
constexpr int kMultiplyWarps = kWarpgroups * kWarpgroupWarps;
static_assert(kTilePixels == kWarpgroups * 64);

// An SM has 228 KB, and each block uses 1 KB in addition. The stages start at a multiple of kSwizzleBytes.
constexpr int kBarrierBytes = 2 * int{sizeof(uint64_t)};  // of a stage
constexpr int StagesFor(int blocks, int stage_bytes, int more_bytes) {
  return (228 * 1024 / blocks - 1024 - kSwizzleBytes - more_bytes) / (stage_bytes + kBarrierBytes);
}

// Stages in shared memory, followed by their barriers.
template <int kBytes, int kCount>
struct StageRing {
  static constexpr int kStageBytes = kBytes, kStages = kCount;
  static constexpr int kRingBytes = kStages * (kStageBytes + kBarrierBytes);
  static_assert(kStages >= 2 && kStageBytes % kSwizzleBytes == 0);

  uint32_t base;

  DEEPER_HD uint32_t Stage(int stage) const { return base + stage * kStageBytes; }
  DEEPER_HD uint32_t Full(int stage) const {
    return base + kStages * kStageBytes + stage * int{sizeof(uint64_t)};
  }
  DEEPER_HD uint32_t Empty(int stage) const { return Full(stage) + kStages * int{sizeof(uint64_t)}; }
};

// The stage of a step, and the parity of its round.
template <int kStages>
struct Turn {
  int stage = 0, parity = 0;

  DEEPER_HD void Advance() {
    if (++stage < kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

// The work of one thread, before all others use the barriers.
//   InitBarrier(barrier, arrivals)  PublishBarriers()
template <class Ring, class Machine>
DEEPER_DEVICE void InitBarriers(const Ring& at, Machine& machine) {
  for (int stage = 0; stage < Ring::kStages; ++stage) {
    machine.InitBarrier(at.Full(stage), 1);
    machine.InitBarrier(at.Empty(stage), kMultiplyWarps);
  }
  machine.PublishBarriers();
}

// The work of the lane that loads. load(stage, full) starts the copies of the next step, kBytes in all.
//   Wait(barrier, parity)            until the phase of that parity has completed
//   ArriveAndExpect(barrier, bytes)  the phase then also waits for that many bytes
template <int kBytes, class Ring, class Machine, class Load>
DEEPER_DEVICE void FillRing(int steps, const Ring& at, Machine& machine, const Load& load) {
  Turn<Ring::kStages> turn;
  for (int left = steps; left > 0; --left) {
    // The first round has no earlier phase: a new barrier does not block a wait for parity 1.
    machine.Wait(at.Empty(turn.stage), 1 - turn.parity);
    const uint32_t full = at.Full(turn.stage);
    machine.ArriveAndExpect(full, kBytes);  // zeros count as bytes, too
    load(at.Stage(turn.stage), full);
    turn.Advance();
  }
}

// The work of a warp. multiply(stage) starts the products of the next step, a group of them. They run while
// the warp waits for the step after it.
//   Wait(barrier, parity)  Arrive(barrier)  IsLeader(): whether this thread arrives for its warp
//   WaitForMultiply<n>(): until at most n groups of products run
template <class Ring, class Machine, class Multiply>
DEEPER_DEVICE void MultiplyRing(int steps, const Ring& at, Machine& machine, const Multiply& multiply) {
  Turn<Ring::kStages> turn;
  int previous = -1;
  for (int left = steps; left > 0; --left) {
    machine.Wait(at.Full(turn.stage), turn.parity);
    multiply(at.Stage(turn.stage));
    machine.template WaitForMultiply<1>();
    if (machine.IsLeader() && previous >= 0) machine.Arrive(at.Empty(previous));
    previous = turn.stage;
    turn.Advance();
  }
  machine.template WaitForMultiply<0>();
}

// ---- Convolutions on sm_90 ------------------------------------------------------------------------------

// kAcross: Gemm::across.
template <bool kBackward, int kColumns, int kAcross>
struct Sm90Sizes {
  static constexpr int kStageBytes = StepPixelBytes(kAcross) + kAcross * TapBytes(kBackward, kColumns);
  static constexpr int kSumBytes = kMultiplyWarps * kColumns * int{sizeof(float)};
  // Two blocks on an SM, if the copies of a stage still overlap with the products of another.
  static constexpr int kBlocks =
      kColumns <= 128 && StagesFor(2, kStageBytes, kSumBytes) >= (kAcross == 1 ? 3 : 2) ? 2 : 1;
  static constexpr int kStages = std::min(5, StagesFor(kBlocks, kStageBytes, kSumBytes));
};

// The layout of shared memory: stages, their barriers, the sums of the warps.
template <bool kBackward, int kColumns, int kAcross>
struct Sm90Layout : StageRing<Sm90Sizes<kBackward, kColumns, kAcross>::kStageBytes,
                              Sm90Sizes<kBackward, kColumns, kAcross>::kStages> {
  using Sizes = Sm90Sizes<kBackward, kColumns, kAcross>;
  static constexpr int kBlocks = Sizes::kBlocks;
  static constexpr int kSums = Sm90Layout::kRingBytes;  // from base
  static constexpr int kSharedBytes = kSums + Sizes::kSumBytes + kSwizzleBytes;
};

//   LoadPixels(to, box, step, barrier), LoadWeights(to, box, barrier)  start a copy, whose bytes count there
template <bool kBackward, int kColumns, int kAcross, class Machine>
DEEPER_DEVICE void FillStages(const Gemm& g, const Tile& tile,
                              const Sm90Layout<kBackward, kColumns, kAcross>& at, Machine& machine) {
  constexpr int kBoxes = kBackward ? CeilDiv(kColumns, kBoxRows) : 1;
  constexpr int kBytes = StepPixels(kAcross) * kRowBytes + kAcross * TapBytes(kBackward, kColumns);
  PixelBox box = PixelBoxOf(g, tile);
  Step step = FirstStep(g);
  FillRing<kBytes>(g.steps(), at, machine, [&](uint32_t stage, uint32_t full) {
    box.channel = step.depth;
    machine.LoadPixels(stage, box, step, full);
    DEEPER_UNROLL
    for (int tap = 0; tap < kAcross; ++tap) {
      DEEPER_UNROLL
      for (int i = 0; i < kBoxes; ++i) {
        machine.LoadWeights(stage + WeightBoxOffset(kBackward, kAcross, kColumns, tap, i),
                            WeightBoxOf(g, tile, step, tap, i), full);
      }
    }
    Advance(g, step);
  });
}

// Starts a warpgroup's products without waiting for them.
//   BeginMultiply()  Multiply(sums, a, b): starts a product, added to sums number `sums`
//   CommitMultiply(): makes the products a group
template <int kSlices, bool kBackward, int kColumns, int kAcross, class Machine>
DEEPER_DEVICE void MultiplySlices(uint32_t stage, int warpgroup, Machine& machine) {
  machine.BeginMultiply();
  DEEPER_UNROLL
  for (int tap = 0; tap < kAcross; ++tap) {
    const uint32_t weights = stage + WeightBoxOffset(kBackward, kAcross, kColumns, tap, 0);
    DEEPER_UNROLL
    for (int slice = 0; slice < kSlices; ++slice) {
      machine.Multiply(0, PixelDescriptor(stage, warpgroup, tap, slice),
                       WeightDescriptor(kBackward, weights, slice));
    }
  }
  machine.CommitMultiply();
}

template <bool kBackward, int kColumns, int kAcross, class Machine>
DEEPER_DEVICE void MultiplyStages(const Gemm& g, const Sm90Layout<kBackward, kColumns, kAcross>& at,
                                  int warpgroup, Machine& machine) {
  Step step = FirstStep(g);
  MultiplyRing(g.steps(), at, machine, [&](uint32_t stage) {
    switch (step.slices) {  // ptxas would insert fences at a branch between two wgmma
      case 1:
        MultiplySlices<1, kBackward, kColumns, kAcross>(stage, warpgroup, machine);
        break;
      case 2:
        MultiplySlices<2, kBackward, kColumns, kAcross>(stage, warpgroup, machine);
        break;
      case 3:
        MultiplySlices<3, kBackward, kColumns, kAcross>(stage, warpgroup, machine);
        break;
      default:
        MultiplySlices<4, kBackward, kColumns, kAcross>(stage, warpgroup, machine);
        break;
    }
    Advance(g, step);
  });
}

// ---- Gradients of weights on sm_90 ----------------------------------------------------------------------

// A block fills an SM: its sums occupy most registers.
template <int kChannels>
struct DwLayout : StageRing<DwStageBytes(kChannels), std::min(5, StagesFor(1, DwStageBytes(kChannels), 0))> {
  static constexpr int kSharedBytes = DwLayout::kRingBytes + kSwizzleBytes;
  // The warpgroups add their sums where the stages were.
  static_assert(kDwTaps * kTileFilters * kChannels * int{sizeof(float)} <= DwLayout::kRingBytes);
};

//   LoadPixels as above, LoadGradients(to, box, barrier): of dy
template <int kChannels, class Machine>
DEEPER_DEVICE void FillDwStages(const Gemm& g, const DwTile& tile, const DwLayout<kChannels>& at,
                                Machine& machine) {
  constexpr int kBytes = kPixelBytes + DwBoxes(kChannels) * StepPixels(kDwTaps) * kRowBytes;
  int place = tile.first_place;
  FillRing<kBytes>(tile.steps, at, machine, [&](uint32_t stage, uint32_t full) {
    const Pixel first = PixelAt(g, place);
    machine.LoadGradients(stage, DyBoxOf(tile, first), full);
    DEEPER_UNROLL
    for (int i = 0; i < DwBoxes(kChannels); ++i) {
      machine.LoadPixels(stage + DwBoxOffset(i), XBoxOf(g, tile, first, i), TapsOf(tile), full);
    }
    place += kTilePixels;
  });
}

// Each warpgroup multiplies half of the places of a step.
template <int kChannels, class Machine>
DEEPER_DEVICE void MultiplyDwStages(const DwTile& tile, const DwLayout<kChannels>& at, int warpgroup,
                                    Machine& machine) {
  MultiplyRing(tile.steps, at, machine, [&](uint32_t stage) {
    machine.BeginMultiply();
    DEEPER_UNROLL
    for (int slice = 0; slice < kDwSlices; ++slice) {
      DEEPER_UNROLL
      for (int tap = 0; tap < kDwTaps; ++tap) {
        machine.Multiply(tap, DyDescriptor(stage, warpgroup, slice),
                         XDescriptor(stage, warpgroup, tap, slice));
      }
    }
    machine.CommitMultiply();
  });
}

}  // namespace deeper::conv
