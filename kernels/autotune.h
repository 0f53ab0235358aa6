// Which of the ways that a library proposes.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cuda_algorithm.h"
#include "kernels/device.h"

namespace deeper {

// The first that can be built: the same every time.
absl::StatusOr<std::unique_ptr<Algorithm>> ChooseFirst(AlgorithmChoice& choice);

// The one that runs fastest, by the clock of `device`, a GPU, on memory that is allocated and freed
// meanwhile: of the first `contenders` that run, or of fewer where they take seconds. With 1 it is the same
// every time. ResourceExhausted if there is not enough memory for the operands.
absl::StatusOr<std::unique_ptr<Algorithm>> ChooseFastest(AlgorithmChoice& choice, const OperandSizes& sizes,
                                                         Device& device, int contenders);

}  // namespace deeper
