// Stochastic gradient descent with momentum and weight decay, one pass over weight, gradient and momentum:
//   g += weight_decay * w;  m = momentum * m + g;  w -= lr * (nesterov ? g + momentum * m : m)
// the form of Sutskever et al. 2013 that PyTorch implements, the learning rate outside the momentum buffer.
#pragma once

#include <cstdint>

#include "kernels/base/device.h"

namespace deeper {

struct SgdParams {
  float momentum = 0.9f;
  float weight_decay = 0.0f;
  bool nesterov = false;
};

// Parameters decay or do not in groups of this many neighbours.
constexpr int64_t kDecayGroup = 16;

// `count` neighbouring parameters, fp32, in the device's memory.
struct SgdArrays {
  float* w = nullptr;  // updated in place
  const float* g = nullptr;
  float* m = nullptr;               // updated in place
  void* narrow = nullptr;           // overwritten with the new w in bf16; nullptr: not wanted
  const uint8_t* decays = nullptr;  // [ceil(count / kDecayGroup)] 0 where weight_decay is not for them;
                                    // nullptr: all decay
  int64_t count = 0;
};

// On the device's stream. `lr` is read from the device's memory when the work runs.
void SgdStep(Device& device, const SgdParams& params, const float* lr, const SgdArrays& arrays);

// Backends.
void SgdStepCpu(Device& device, const SgdParams& params, const float* lr, const SgdArrays& arrays);
void SgdStepCuda(Device& device, const SgdParams& params, const float* lr, const SgdArrays& arrays);

}  // namespace deeper
