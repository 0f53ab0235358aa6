// The pipelines of the tensor core convolutions: the order of copies, products and waits. A machine, which is
// a template parameter, executes each operation. On the GPU it is one instruction (conv_sm80.cu,
// conv_sm90.cu). On the host, the tests in tests/kernels/cuda/tensor_core/ record the operations, try all
// orders in which the threads of a block can execute them, and emulate them on data.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/base/host_device.h"
#include "kernels/cuda/base/codegen.h"
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

// The layout of shared memory: stages, their barriers, the sums of the warps. kAcross: Gemm::across.
template <bool kBackward, int kColumns, int kAcross>
struct Sm90Layout {
  static constexpr int kStageBytes = StepPixelBytes(kAcross) + kAcross * TapBytes(kBackward, kColumns);
  static constexpr int kBarrierBytes = 2 * int{sizeof(uint64_t)};  // of a stage
  static constexpr int kSumBytes = kMultiplyWarps * kColumns * int{sizeof(float)};
  // An SM has 228 KB, and each block uses 1 KB in addition. The stages start at a multiple of kSwizzleBytes.
  static constexpr int StagesFor(int blocks) {
    return (228 * 1024 / blocks - 1024 - kSwizzleBytes - kSumBytes) / (kStageBytes + kBarrierBytes);
  }
  // Two blocks on an SM, if the copies of a stage still overlap with the products of another.
  static constexpr int kBlocks = kColumns <= 128 && StagesFor(2) >= (kAcross == 1 ? 3 : 2) ? 2 : 1;
  static constexpr int kStages = std::min(5, StagesFor(kBlocks));
  static constexpr int kSums = kStages * (kStageBytes + kBarrierBytes);  // from base
  static constexpr int kSharedBytes = kSums + kSumBytes + kSwizzleBytes;
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
template <bool kBackward, int kColumns, int kAcross, class Machine>
DEEPER_DEVICE void InitBarriers(const Sm90Layout<kBackward, kColumns, kAcross>& at, Machine& machine) {
  for (int stage = 0; stage < Sm90Layout<kBackward, kColumns, kAcross>::kStages; ++stage) {
    machine.InitBarrier(at.Full(stage), 1);
    machine.InitBarrier(at.Empty(stage), kMultiplyWarps);
  }
  machine.PublishBarriers();
}

// The work of the lane that loads.
//   Wait(barrier, parity)            until the phase of that parity has completed
//   ArriveAndExpect(barrier, bytes)  the phase then also waits for that many bytes
//   LoadPixels(to, box, step, barrier), LoadWeights(to, box, barrier)  start a copy, whose bytes count there
template <bool kBackward, int kColumns, int kAcross, class Machine>
DEEPER_DEVICE void FillStages(const Gemm& g, const Tile& tile,
                              const Sm90Layout<kBackward, kColumns, kAcross>& at, Machine& machine) {
  constexpr int kBoxes = kBackward ? CeilDiv(kColumns, kBoxRows) : 1;
  constexpr int kBytes = StepPixels(kAcross) * kRowBytes + kAcross * TapBytes(kBackward, kColumns);
  PixelBox box = PixelBoxOf(g, tile);
  Step step = FirstStep(g);
  Turn<Sm90Layout<kBackward, kColumns, kAcross>::kStages> turn;
  for (int left = g.steps(); left > 0; --left) {
    // The first round has no earlier phase: a new barrier does not block a wait for parity 1.
    machine.Wait(at.Empty(turn.stage), 1 - turn.parity);
    const uint32_t full = at.Full(turn.stage), stage = at.Stage(turn.stage);
    machine.ArriveAndExpect(full, kBytes);  // zeros count as bytes, too
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
    turn.Advance();
  }
}

// Starts a warpgroup's products without waiting for them.
template <int kSlices, bool kBackward, int kColumns, int kAcross, class Machine>
DEEPER_DEVICE void MultiplySlices(uint32_t stage, int warpgroup, Machine& machine) {
  machine.BeginMultiply();
  DEEPER_UNROLL
  for (int tap = 0; tap < kAcross; ++tap) {
    const uint32_t weights = stage + WeightBoxOffset(kBackward, kAcross, kColumns, tap, 0);
    DEEPER_UNROLL
    for (int slice = 0; slice < kSlices; ++slice) {
      machine.Multiply(PixelDescriptor(stage, warpgroup, tap, slice),
                       WeightDescriptor(kBackward, weights, slice));
    }
  }
  machine.CommitMultiply();
}

// The work of a warp. The products of a step run while the warp waits for the next step.
//   Wait(barrier, parity)  Arrive(barrier)  IsLeader(): whether this thread arrives for its warp
//   BeginMultiply()  Multiply(pixels, weights): starts a product  CommitMultiply(): makes them a group
//   WaitForMultiply<n>(): until at most n groups run
template <bool kBackward, int kColumns, int kAcross, class Machine>
DEEPER_DEVICE void MultiplyStages(const Gemm& g, const Sm90Layout<kBackward, kColumns, kAcross>& at,
                                  int warpgroup, Machine& machine) {
  Step step = FirstStep(g);
  Turn<Sm90Layout<kBackward, kColumns, kAcross>::kStages> turn;
  int previous = -1;
  for (int left = g.steps(); left > 0; --left) {
    machine.Wait(at.Full(turn.stage), turn.parity);
    const uint32_t stage = at.Stage(turn.stage);
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
    machine.template WaitForMultiply<1>();
    if (machine.IsLeader() && previous >= 0) machine.Arrive(at.Empty(previous));
    previous = turn.stage;
    Advance(g, step);
    turn.Advance();
  }
  machine.template WaitForMultiply<0>();
}

}  // namespace deeper::conv
