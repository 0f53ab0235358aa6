// The training step: load, forward, backward, sum gradients over ranks, update.
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

// Results and times of one step on this rank.
struct StepReport {
  uint32_t epoch = 0;
  int64_t batch = 0;  // global batch within the epoch
  bool last_in_epoch = false;
  bool finite = true;                // false, on all ranks: loss or gradients were not; weights unchanged
  int64_t global_rows = 0;           // samples of the step over all ranks
  int64_t samples = 0;               // hash of this rank's samples; the sum over ranks is the step's
  std::vector<HeadResult> heads;     // sums over this rank's rows
  std::vector<double> micro_losses;  // [micro-batch][head]: the parts of heads' loss_sum
  double data_wait_ms = 0;           // waiting for the loader that no work of the device hides
  double upload_wait_ms = 0;         // part of compute_ms: waiting for the upload of a batch
  double compute_ms = 0;             // forward, backward, update
  double comm_wait_ms = 0;           // waiting for other ranks' gradients, weights and statistics
};

// Sums the gradients of a step's earlier micro-batches and adds them to the last one's, before the exchange.
//   kRunning  one after the other: one sum is kept
//   kTree     a power of two of them, in the order of a balanced binary tree: log2 of their number are kept
enum class Accumulation { kRunning, kTree };

class GradientAccumulator {
 public:
  GradientAccumulator(ParamStore& params, Device& device, Accumulation order = Accumulation::kRunning)
      : params_(params), device_(device), order_(order) {}
  // ResourceExhausted if there is no memory for the sums; one micro-batch per step needs none.
  absl::Status Reserve(int micros);
  void Add(const GradientPiece& piece, int micro, int micros);
  // Whether Add does the same work for all micro-batches between the first and the last of a step.
  bool repeats() const { return order_ == Accumulation::kRunning; }

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

  // One step on the next global batch. Errors of the loader: OutOfRange: the end; DataLoss: a bad sample.
  absl::StatusOr<StepReport> Run(float lr);

 private:
  absl::StatusOr<Batch> NextBatch();
  void Prefetch(StepReport& report);
  void AwaitDevice(int micro, bool sums);  // sums: the work includes sums over ranks

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
  std::unique_ptr<IdleTimer> idle_;            // of the device, while Prefetch waits for the loader
  // [Network::image_buffer()][micro-batch is the first of its step][it is the last]
  std::unique_ptr<Recording> recordings_[Network::kImageBuffers][2][2];
};

}  // namespace deeper
