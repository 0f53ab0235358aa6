// Exact evaluation: every sample of a split exactly once, on any number of ranks.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "data/load/dataset.h"
#include "data/load/loader.h"
#include "trainer/engine/network.h"

namespace deeper {

struct EvalResult {
  int64_t count = 0;           // samples, over all ranks
  double loss = 0;             // mean
  int64_t top1 = 0, top5 = 0;  // correct ones
};

// Collective. `net` is prepared for inference and configures the loader (Network::Configure). `preset` says
// how images are prepared; order, batch and ranks are set here. on_batch, if given, receives every batch of
// this rank and its logits [rows, classes]. DataLoss, on all ranks, if a sample cannot be read or if the
// samples counted are not those of the dataset.
absl::StatusOr<EvalResult> Evaluate(
    Network& net, Device& device, const Dataset& dataset, LoaderOptions preset, Communicator& comm,
    const std::function<void(const Batch&, const float* logits)>& on_batch = nullptr);

}  // namespace deeper
