// The update of parameters from their gradients. A rule updates one parameter; one pass over the arrays
// serves every rule, on the CPU and on CUDA.
#pragma once

#include <cmath>
#include <cstdint>
#include <variant>

#include "kernels/base/host_device.h"
#include "kernels/ops/backend.h"

namespace deeper {

// The values that change from step to step.
struct StepScalars {
  float lr = 0;
  int32_t step = 1;  // step of the training, from 1, for bias correction
};

// A rule has
//   kName, kStates     the name of its launch, and how many floats it keeps per parameter
//   weight_decay
//   operator()         updates the parameter `w` and its `state` [kStates]; `decay` is weight_decay, or 0
//                      where the parameter does not decay

// Stochastic gradient descent with momentum, in the form of Sutskever et al. 2013 that PyTorch implements:
//   g += weight_decay * w;  m = momentum * m + g;  w -= lr * (nesterov ? g + momentum * m : m)
// The learning rate is applied outside the momentum buffer.
struct SgdRule {
  static constexpr const char* kName = "sgd";
  static constexpr int kStates = 1;
  float momentum = 0.9f;
  float weight_decay = 0.0f;
  bool nesterov = false;

  DEEPER_HD void operator()(const StepScalars& now, float decay, float& w, float g, float* state) const {
    const float gradient = g + decay * w;
    const float velocity = momentum * state[0] + gradient;
    state[0] = velocity;
    w -= now.lr * (nesterov ? gradient + momentum * velocity : velocity);
  }
};

using UpdateRule = std::variant<SgdRule>;
constexpr int kMostStates = 2;

// Weight decay is switched on or off for groups of this many neighbouring parameters.
constexpr int64_t kDecayGroup = 16;

// LARS (You, Gitman, Ginsburg 2017): the gradient of a tensor, weight decay included, is multiplied by its
// trust ratio  coefficient * |w| / (|g| + weight_decay * |w|), where |.| is the norm of the tensor. It is 1
// for tensors that do not decay, and where a norm is 0.
struct TrustTensor {
  int64_t first = 0, count = 0;  // of its elements, padding included, which must be zeros
  bool decays = false;
};

struct TrustArguments {
  float coefficient = 0.001f, weight_decay = 0;
  // All pointers are to the device's memory.
  const float *w = nullptr, *g = nullptr;  // [elements] whole arenas
  int64_t elements = 0;
  const TrustTensor* tensors = nullptr;  // [count]
  int64_t count = 0;
  float* ratios = nullptr;    // [count], overwritten
  void* workspace = nullptr;  // TrustWorkspaceBytes(device, count)
};

// The norms are sums in double precision in a fixed order: the same bits in every run and on every rank.
DEEPER_BACKENDS(void, FindTrustRatios, Device& device, const TrustArguments& arguments);
DEEPER_BACKENDS(size_t, TrustWorkspaceBytes, Device& device, int64_t tensors);

DEEPER_HD inline float TrustRatio(const TrustArguments& a, int64_t tensor, double w_squares,
                                  double g_squares) {
  const double w = sqrt(w_squares), g = sqrt(g_squares);
  if (!a.tensors[tensor].decays || w == 0 || g == 0) return 1;
  return static_cast<float>(double{a.coefficient} * w / (g + double{a.weight_decay} * w));
}

// `count` neighbouring parameters, fp32, in the device's memory.
struct UpdateArrays {
  float* w = nullptr;  // updated in place
  const float* g = nullptr;
  float* states[kMostStates] = {};  // the first kStates of them, updated in place
  void* narrow = nullptr;           // overwritten with the new w in bf16; nullptr: not needed
  const uint8_t* decays = nullptr;  // [ceil(count / kDecayGroup)] 0: no weight decay; nullptr: all decay
  int64_t count = 0;
  // In device memory, read when the work runs: if it is not 0, nothing changes. nullptr: never.
  const uint32_t* skip = nullptr;
  // [ceil(count / kDecayGroup)] factors on the learning rate; nullptr: all 1
  const float* lr_scales = nullptr;
  // [ceil(count / kDecayGroup)] the tensor of each group, and [tensors] factors on their gradients, decay
  // included; nullptr: all 1
  const int32_t* tensors = nullptr;
  const float* ratios = nullptr;
};

// Runs on the device's stream. The work reads `now` from device memory when it runs.
DEEPER_BACKENDS(void, Update, Device& device, const UpdateRule& rule, const StepScalars* now,
                const UpdateArrays& arrays);

// An exponential moving average of values that change from step to step:
//   average += (1 - d) * (x - average), where d = min(decay, (1 + step) / (10 + step))
// d rises, so that the first values do not count for long (TensorFlow's ExponentialMovingAverage with
// num_updates). `count` floats in the device's memory; `now` and `skip` as for Update.
DEEPER_BACKENDS(void, UpdateAverage, Device& device, float decay, const StepScalars* now, const float* x,
                float* average, int64_t count, const uint32_t* skip);

// 1 - d.
DEEPER_HD inline float ShareOfNewest(float decay, const StepScalars& now) {
  const auto step = static_cast<float>(now.step);
  const float warm = (1 + step) / (10 + step);
  return 1 - (decay < warm ? decay : warm);
}

}  // namespace deeper
