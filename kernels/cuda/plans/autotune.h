// Selects one of the algorithms that a library proposes.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/base/device.h"
#include "kernels/cuda/plans/cuda_algorithm.h"

namespace deeper {

// Returns the first that can be built: the same one every time.
absl::StatusOr<std::unique_ptr<Algorithm>> ChooseFirst(AlgorithmChoice& choice);

// Checks whether an algorithm that needs it (Algorithm::needs_check) computes correct results from these
// operands. It may overwrite the results.
using AlgorithmCheck = std::function<absl::Status(Algorithm& algorithm, const PlanOperands& operands)>;

// Returns the fastest algorithm, timed on `device`, a GPU, with temporary memory. Times the first
// `contenders` that run, or fewer if they take seconds. With 1 the result is always the same. Excludes an
// algorithm that fails its check and prints a line on stderr that starts with `name`. ResourceExhausted if
// there is not enough memory for the operands.
absl::StatusOr<std::unique_ptr<Algorithm>> ChooseFastest(AlgorithmChoice& choice, const std::string& name,
                                                         const OperandSizes& sizes, Device& device,
                                                         int contenders, const AlgorithmCheck& check);

}  // namespace deeper
