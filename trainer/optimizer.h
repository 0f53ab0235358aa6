// Updates all parameters from their gradients: momentum SGD over the flat arenas.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/device.h"
#include "kernels/sgd.h"
#include "trainer/params.h"

namespace deeper {

struct OptimizerOptions {
  float momentum = 0.9f;
  float weight_decay = 0.0f;  // of weights; biases and batch norm's scale and shift are not decayed
  bool nesterov = false;
};

class Optimizer {
 public:
  // `params` must outlive the optimizer.
  Optimizer(const OptimizerOptions& options, ParamStore& params, Device& device);

  // Of the steps enqueued from now on; not before the work enqueued earlier is done.
  void SetLearningRate(float lr);
  // values and momentum updated in place from grads, on the device's stream. Reads the rate from memory, so
  // that a recorded step follows SetLearningRate.
  void Step();

 private:
  OptimizerOptions options_;
  ParamStore& params_;
  Device& device_;
  Buffer decays_;  // SgdArrays::decays
  Buffer lr_, staged_lr_;
};

}  // namespace deeper
