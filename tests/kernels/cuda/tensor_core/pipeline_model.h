// A model checker for the pipeline of conv_pipeline.h for sm_90: it tries all orders in which the threads of
// a block can execute their operations, and finds those that are wrong.
//
// The threads are the lane that loads and the 8 warps that multiply. Their operations are recorded from the
// loops that the GPU runs, which do not depend on data. A state consists of the positions of the threads, the
// copies under way, and the barriers. mbarrier is as the PTX ISA describes it: a phase completes when all
// arrivals and all expected bytes have come, and a wait for a parity passes if the phase of that parity is
// not the current one. A copy may land at any time after its start. These simplifications leave out no fault:
//   - Warps are interchangeable, so a state holds their positions in sorted order. So are the boxes of
//     weights of a stage, so a state holds their number.
//   - An operation that no other thread can observe belongs to the wait or arrival next to it. Copies and
//     products start as early as possible, and products end as late as possible.
#pragma once

#include <cstdint>
#include <string>

#include "tests/kernels/cuda/tensor_core/pipeline_recording.h"

namespace deeper::conv {

// The first fault of a block, or "". Adds the number of states to `states`.
std::string FaultOf(const Recording& recording, int64_t* states = nullptr);

// The same for a block of ConvSm90.
template <bool kBackward, int kColumns, int kAcross>
std::string FaultOfBarriers(Gemm g, int64_t* states = nullptr) {
  g.backward = kBackward;
  g.across = kAcross;
  const Tile tile = TileOf(g, kColumns, Blocks(g, kColumns) - 1);
  return FaultOf(Record<kBackward, kColumns, kAcross>(g, tile, 3 * kSwizzleBytes), states);
}

// The same for the first split of `steps` steps of WeightGradientSm90.
template <int kChannels>
std::string FaultOfDwBarriers(int steps, int64_t* states = nullptr) {
  const Gemm g = {.images = steps, .height = 16, .width = 8, .depth = kChannels, .columns = 8, .kernel = 3};
  Gemm rows = g;
  rows.across = kDwTaps;
  return FaultOf(RecordDw<kChannels>(rows, {0, 0, 1, 0, 0, steps}, 3 * kSwizzleBytes), states);
}

}  // namespace deeper::conv
