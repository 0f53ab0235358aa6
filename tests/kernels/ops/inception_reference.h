// The definition of an Inception module and of its gradients, in double.
#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "kernels/ops/inception/inception.h"
#include "tests/kernels/ops/op_test.h"
#include "tests/kernels/ops/reference.h"

namespace deeper::testing {

inline Reference InceptionReference(const InceptionParams& p, const Shape& x_shape, bool training) {
  return [=](const Doubles& values, const std::vector<Doubles>& params) {
    const NaiveTensor x{x_shape, values};
    size_t next = 0;
    const auto convolve = [&](const NaiveTensor& in, int64_t channels, int64_t kernel) {
      const Conv2dParams conv = {
          .out_channels = channels, .kernel = kernel, .pad = kernel / 2, .batch_norm = p.batch_norm};
      return NaiveConv2d(in, conv, params, next, training);
    };
    NaiveTensor y = NaiveZeros({x_shape.n, p.out_channels(x_shape.c), x_shape.h, x_shape.w});
    NaivePaste(convolve(x, p.c1, 1), 0, y);
    NaivePaste(convolve(p.c2_reduce > 0 ? convolve(x, p.c2_reduce, 1) : x, p.c2, 3), p.c1, y);
    NaivePaste(convolve(p.c3_reduce > 0 ? convolve(x, p.c3_reduce, 1) : x, p.c3, p.branch3_kernel),
               p.c1 + p.c2, y);
    const NaiveTensor pooled = NaiveMaxPool(x, 3, 1, 1);
    NaivePaste(p.c4 > 0 ? convolve(pooled, p.c4, 1) : pooled, p.c1 + p.c2 + p.c3, y);
    return y.values;
  };
}

// The definition of every gradient, without batch norm. `dy` and `params` are in the op's order.
struct InceptionGradients {
  Doubles x;
  std::vector<Doubles> params;
};

inline InceptionGradients NaiveBackward(const InceptionParams& p, const NaiveTensor& x,
                                        const std::vector<Doubles>& params, const NaiveTensor& dy) {
  InceptionGradients g{Doubles(x.values.size()), {}};
  size_t next = 0;
  int64_t channel = 0;
  for (const InceptionBranch& branch : InceptionBranches(p)) {
    std::vector<NaiveTensor> steps = {x};
    if (branch.pool) steps.push_back(NaiveMaxPool(x, 3, 1, 1));
    for (const auto& conv : branch.convolutions)
      steps.push_back(NaiveConv2d(steps.back(), conv.params, params, next, true));
    NaiveTensor d = NaiveCut(dy, channel, steps.back().shape.c);
    channel += d.shape.c;
    const size_t count = branch.convolutions.size();
    g.params.resize(next);
    for (size_t i = count; i-- > 0; steps.pop_back()) {
      const NaiveTensor &in = steps[steps.size() - 2], &out = steps.back();
      for (size_t e = 0; e < d.values.size(); ++e) d.values[e] *= out.values[e] > 0;
      const size_t param = next - 2 * (count - i);
      NaiveGradients conv = NaiveConvolutionBackward(in, branch.convolutions[i].params, params[param], d);
      g.params[param] = std::move(conv.weight);
      g.params[param + 1] = std::move(conv.bias);
      d = {in.shape, std::move(conv.x)};
    }
    if (branch.pool) d = {x.shape, NaiveMaxPoolBackward(x, steps.back(), d, 3, 1, 1)};
    std::transform(g.x.begin(), g.x.end(), d.values.begin(), g.x.begin(), std::plus<>());
  }
  return g;
}

}  // namespace deeper::testing
