// Which of the ways that a library proposes.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/base/device.h"
#include "kernels/cuda/plans/cuda_algorithm.h"

namespace deeper {

// The first that can be built: the same every time.
absl::StatusOr<std::unique_ptr<Algorithm>> ChooseFirst(AlgorithmChoice& choice);

// Whether an algorithm that needs a check (Algorithm::needs_check) computes what it should from these
// operands, of which it may overwrite the results.
using AlgorithmCheck = std::function<absl::Status(Algorithm& algorithm, const PlanOperands& operands)>;

// The one that runs fastest, by the clock of `device`, a GPU, on memory that is allocated and freed
// meanwhile: of the first `contenders` that run, or of fewer where they take seconds. With 1 it is the same
// every time. One that needs a check and fails it is left out, with a line on stderr that begins with `name`.
// ResourceExhausted if there is not enough memory for the operands.
absl::StatusOr<std::unique_ptr<Algorithm>> ChooseFastest(AlgorithmChoice& choice, const std::string& name,
                                                         const OperandSizes& sizes, Device& device,
                                                         int contenders, const AlgorithmCheck& check);

}  // namespace deeper
