// Selects one of the algorithms that a library proposes.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/base/device.h"
#include "kernels/cuda/plans/cuda_algorithm.h"

namespace deeper {

// Returns the first that can be built: the same one every time.
absl::StatusOr<std::unique_ptr<Algorithm>> ChooseFirst(AlgorithmChoice& choice);

// Runs an algorithm that needs a check (Algorithm::needs_check) for the first time: checks that it computes
// correct results from these operands, which it may overwrite, and returns what `time` returns. If
// the algorithm does not end within `time`, the process ends; the trial limits the other runs of it.
using AlgorithmTrial = std::function<absl::StatusOr<double>(
    Algorithm& algorithm, const PlanOperands& operands, const std::function<double()>& time)>;

struct Contest {
  int contenders = 1;
  std::chrono::seconds trial_limit{20};  // for the timing of each
};

// Returns the fastest algorithm, timed on `device`, a GPU, with temporary memory. Times the first
// `contenders` that run, or fewer if they take seconds. With 1 the result is always the same, and nothing is
// timed. Excludes an algorithm that fails its trial and prints a line on stderr that starts with `name`. One
// that does not end ends the process (kernels/base/trial.h). ResourceExhausted if there is not enough memory
// for the operands.
absl::StatusOr<std::unique_ptr<Algorithm>> ChooseFastest(AlgorithmChoice& choice, const std::string& name,
                                                         const OperandSizes& sizes, Device& device,
                                                         const Contest& contest, const AlgorithmTrial& trial);

}  // namespace deeper
