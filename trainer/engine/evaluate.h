// Exact evaluation: every sample of a split exactly once, on any number of ranks.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "data/load/dataset.h"
#include "data/load/loader.h"
#include "kernels/base/choice.h"
#include "trainer/engine/network.h"

namespace deeper {

struct EvalResult {
  int64_t count = 0;           // samples, over all ranks
  double loss = 0;             // mean
  int64_t top1 = 0, top5 = 0;  // correct ones
};

// Test-time augmentation. kFlip classifies each image and its mirror image, and averages their logits.
enum class Tta { kNone, kFlip };
constexpr auto Choices(Tta) {
  return std::to_array<Choice<Tta>>(
      {{"none", Tta::kNone}, {"flip", Tta::kFlip, "the mean logits of each image and its mirror image"}});
}

// Collective. `net` is prepared for inference and configures the loader (Network::Configure). `preset` says
// how images are prepared; order, batch and ranks are set here. on_batch, if given, receives every batch of
// this rank and its logits [rows, classes], averaged with kFlip. DataLoss, on all ranks, if a sample cannot
// be read or if the samples counted are not those of the dataset.
absl::StatusOr<EvalResult> Evaluate(
    Network& net, Device& device, const Dataset& dataset, LoaderOptions preset, Communicator& comm, Tta tta,
    const std::function<void(const Batch&, const float* logits)>& on_batch = nullptr);

}  // namespace deeper
