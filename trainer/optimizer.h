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

  // values and momentum updated in place from grads, on the device's stream.
  void Step(float lr);

 private:
  struct Range {
    int64_t offset = 0, count = 0;
    bool decay = false;
  };

  OptimizerOptions options_;
  ParamStore& params_;
  Device& device_;
  std::vector<Range> ranges_;
};

}  // namespace deeper
