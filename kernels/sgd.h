// Stochastic gradient descent with momentum and weight decay, one pass over weight, gradient and momentum:
//   g += weight_decay * w;  m = momentum * m + g;  w -= lr * (nesterov ? g + momentum * m : m)
// the form of Sutskever et al. 2013 that PyTorch implements, the learning rate outside the momentum buffer.
#pragma once

#include <cstdint>

#include "kernels/device.h"

namespace deeper {

struct SgdParams {
  float lr = 0.01f;
  float momentum = 0.9f;
  float weight_decay = 0.0f;
  bool nesterov = false;
};

// w, m: updated in place; g: read. fp32, `count` elements, on the device's stream.
void SgdStep(Device& device, const SgdParams& params, float* w, const float* g, float* m, int64_t count);

}  // namespace deeper
