// Updates all parameters from their gradients: momentum SGD over the flat arenas.
//
// Where momentum is sharded over the ranks, it is the first stage of ZeRO (Rajbhandari et al. 2020): a rank
// updates the parameters that it keeps momentum for, and an all-gather gives their new values to the others.
// Gradients are summed as ever, everywhere and while backward runs. A reduce-scatter of them would do, but
// adds up in another order: like this, every weight has the bits that it has without sharding. Of n fp32
// parameters and w ranks, each rank saves 4n (1 - 1/w) bytes of memory and as large a part of the update,
// and sends 4n (1 - 1/w) bytes more a step: half of what the sum of the gradients sends.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/communicator.h"
#include "kernels/base/device.h"
#include "kernels/ops/arrays/sgd.h"
#include "trainer/engine/params.h"

namespace deeper {

struct OptimizerOptions {
  float momentum = 0.9f;
  float weight_decay = 0.0f;  // of weights; biases and batch norm's scale and shift are not decayed
  bool nesterov = false;
};

class Optimizer {
 public:
  // `params` and `comm` must outlive the optimizer. `comm`: of the ranks that share the momentum, on the CPU
  // only; nullptr where it is not sharded.
  Optimizer(const OptimizerOptions& options, ParamStore& params, Device& device,
            Communicator* comm = nullptr);

  // Of the steps enqueued from now on; not before the work enqueued earlier is done.
  void SetLearningRate(float lr);
  // values and momentum updated in place from grads, on the device's stream. Reads the rate from memory, so
  // that a recorded step follows SetLearningRate. Collective where momentum is sharded.
  void Step();
  // Time the last Step spent waiting for other ranks' weights.
  double wait_ms() const { return wait_ms_; }

 private:
  void GatherWeights();

  OptimizerOptions options_;
  ParamStore& params_;
  Device& device_;
  Communicator* const comm_;
  Buffer decays_;  // SgdArrays::decays
  Buffer lr_, staged_lr_;
  double wait_ms_ = 0;
};

}  // namespace deeper
