// Updates all parameters from their gradients, over the flat arenas.
//
// Where the state is sharded over the ranks, it is the first stage of ZeRO (Rajbhandari et al. 2020): a rank
// updates the parameters that it keeps state for, and an all-gather gives their new values to the others.
// Gradients are summed as ever, everywhere and while backward runs. A reduce-scatter of them would do, but
// adds up in another order: like this, every weight has the bits that it has without sharding. Of n fp32
// parameters, s arenas of state and w ranks, each rank saves 4ns (1 - 1/w) bytes of memory and as large a
// part of the update, and sends 4n (1 - 1/w) bytes more a step: half of what the sum of the gradients sends.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "comm/communicator.h"
#include "kernels/base/device.h"
#include "kernels/ops/arrays/update.h"
#include "trainer/engine/params.h"

namespace deeper {

struct OptimizerOptions {
  std::string name = "sgd";  // one of OptimizerNames()
  float momentum = 0.9f;
  float weight_decay = 0.0f;  // of weights; biases and batch norm's scale and shift are not decayed
  int64_t first_step = 0;     // steps that a resumed run has done already
};

// As --optimizer takes them.
std::vector<std::string> OptimizerNames();
// StateArenas::names for an optimizer.
std::vector<std::string> OptimizerState(std::string_view name);

class Optimizer {
 public:
  // `params`, which have the optimizer's state, and `comm` must outlive the optimizer. `comm`: of the ranks
  // that share the state, on the CPU only; nullptr where it is not sharded.
  Optimizer(const OptimizerOptions& options, ParamStore& params, Device& device,
            Communicator* comm = nullptr);

  // Begins the next step of the training, skipped or not, at this rate. Not before earlier work is done.
  void BeginStep(float lr);
  // values and states updated in place from grads, on the device's stream. Reads the rate from memory, so
  // that a recorded step follows BeginStep. Collective where the state is sharded.
  void Step();
  // Time the last Step spent waiting for other ranks' weights.
  double wait_ms() const { return wait_ms_; }

 private:
  const UpdateRule rule_;
  ParamStore& params_;
  Device& device_;
  Communicator* const comm_;
  Buffer decays_;  // UpdateArrays::decays
  StepScalars next_;
  Buffer now_, staged_now_;  // StepScalars
  double wait_ms_ = 0;
};

}  // namespace deeper
