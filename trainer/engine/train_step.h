// THE training step: everything deeper exists for, in one place.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/gradient_reducer.h"
#include "data/load/loader.h"
#include "trainer/engine/finite_guard.h"
#include "trainer/engine/network.h"
#include "trainer/engine/optimizer.h"
#include "trainer/engine/statistics_sum.h"

namespace deeper {

// What this rank saw of one step.
struct StepReport {
  uint32_t epoch = 0;
  int64_t batch = 0;  // global batch within the epoch
  bool last_in_epoch = false;
  bool finite = true;       // false, on all ranks: loss or gradients were not, and the weights stayed
  int64_t global_rows = 0;  // samples of the step over all ranks
  int64_t samples = 0;      // which ones this rank trained on: a hash, whose sum over ranks is the step's
  std::vector<HeadResult> heads;     // sums over this rank's rows
  std::vector<double> micro_losses;  // [micro-batch][head]: the parts of heads' loss_sum
  double data_wait_ms = 0;           // the loader kept us waiting
  double upload_wait_ms = 0;         // part of compute_ms: the host waited for a batch to be on the device
  double compute_ms = 0;             // forward, backward, update
  double comm_wait_ms = 0;  // for other ranks: for gradients and weights after backward, for statistics
};

// Keeps the sums of the gradients of a step's earlier micro-batches, and adds them to the last one's just
// before they leave.
//   kRunning  one after the other: one sum is kept
//   kTree     a power of two of them, in the order of a balanced binary tree: log2 of their number are kept
enum class Accumulation { kRunning, kTree };

class GradientAccumulator {
 public:
  GradientAccumulator(ParamStore& params, Device& device, Accumulation order = Accumulation::kRunning)
      : params_(params), device_(device), order_(order) {}
  // ResourceExhausted if there is no memory for the sums; nothing is allocated for one micro-batch a step.
  absl::Status Reserve(int micros);
  void Add(const GradientPiece& piece, int micro, int micros);

 private:
  ParamStore& params_;
  Device& device_;
  const Accumulation order_;
  std::vector<Buffer> sums_;
};

class TrainStep {
 public:
  TrainStep(Loader& loader, Network& net, GradientAccumulator& accumulator, GradientReducer& reducer,
            FiniteGuard& guard, Optimizer& optimizer, Device& device, uint64_t seed,
            StatisticsSum* statistics = nullptr);

  // One step on the next global batch. Errors are the loader's: OutOfRange: the end, DataLoss: a bad sample.
  absl::StatusOr<StepReport> Run(float lr);

 private:
  absl::StatusOr<Batch> NextBatch();
  void Prefetch(StepReport& report);
  void AwaitDevice(bool sums);  // over ranks, are among the work

  Loader& loader_;
  Network& net_;
  GradientAccumulator& accumulator_;
  GradientReducer& reducer_;
  FiniteGuard& guard_;
  Optimizer& optimizer_;
  Device& device_;
  uint64_t seed_;
  StatisticsSum* const statistics_;            // of net's batch norms; nullptr: they exchange none
  std::optional<absl::StatusOr<Batch>> next_;  // staged already
  // By whether a micro-batch is the first of its step, and whether the last.
  std::unique_ptr<Recording> recordings_[2][2];
};

}  // namespace deeper
