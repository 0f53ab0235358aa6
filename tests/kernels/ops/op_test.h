// Runs one op on canonical values (fp32, N,C,H,W) for any layout, type and device. Checks it against a naive
// reference, against finite differences of that reference, and against its contract (what it may read and
// must write).
//
//   CheckOp(Conv2dParams{...}, {2, 24, 7, 7}, DType::kF32, reference);  // a whole test
//   OpDriver driver(params, x_desc, options, device, dy_parts);         // its pieces, for benchmarks too
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/base/bf16.h"
#include "kernels/base/check.h"
#include "kernels/base/device.h"
#include "kernels/ops/ops.h"
#include "tests/kernels/ops/test_values.h"
#include "tests/kernels/test_device.h"

namespace deeper::testing {

// The offsets of an op's parameters in one array, and its size. Each is aligned to 64 bytes, except those
// that must be contiguous.
inline std::vector<size_t> PlaceParams(const OpNeeds& needs, size_t& elements) {
  std::vector<size_t> offsets(needs.params.size());
  std::vector<std::vector<size_t>> runs = needs.adjacent_params;
  std::vector<bool> in_run(needs.params.size());
  for (const auto& run : runs) {
    for (const size_t i : run) in_run[i] = true;
  }
  for (size_t i = 0; i < offsets.size(); ++i) {
    if (!in_run[i]) runs.push_back({i});
  }
  elements = 0;
  for (const auto& run : runs) {
    for (const size_t i : run) {
      offsets[i] = elements;
      elements += static_cast<size_t>(needs.params[i].stored_elements);
    }
    elements = (elements + 15) / 16 * 16;
  }
  return offsets;
}

// The definition of PooledPart: adds the gradient of the pool, [n, c, h, w], to that of the pooled tensor.
// `argmax` has the layout of the pool's output.
inline void AddSpread(const PooledPart& part, const Values& dy, const std::vector<uint8_t>& argmax,
                      const Shape& x, Values& sum) {
  const Shape& y = part.desc.shape;
  for (int64_t i = 0; i < y.elements(); ++i) {
    const int64_t column = i % y.w, row = i / y.w % y.h, image = i / y.spatial();  // and channel
    const auto stored = static_cast<size_t>(part.desc.Offset(image / y.c, image % y.c, row, column));
    if (part.kernel == 3 && argmax[stored] == 9) continue;  // masked
    const int64_t at_row = row * part.stride - part.pad + argmax[stored] / part.kernel;
    const int64_t at_column = column * part.stride - part.pad + argmax[stored] % part.kernel;
    ASSERT_TRUE(at_row >= 0 && at_row < x.h && at_column >= 0 && at_column < x.w);
    sum[static_cast<size_t>((image * x.h + at_row) * x.w + at_column)] += dy[static_cast<size_t>(i)];
  }
}

// A prepared op with its own memory. Before each call, all memory that the op must not rely on is poisoned.
class OpDriver {
 public:
  OpDriver(const OpParams& params, const TensorDesc& x, const OpOptions& options, Device& device,
           int dy_parts = 1)
      : shape_(InferOp(params, x.shape).value()),
        op_(MakeOp(params, x, options, device).value()),
        device_(device),
        device_samples_(static_cast<size_t>(x.shape.n), device),
        device_step_(1, device) {
    const OpNeeds& needs = op_->needs();
    EXPECT_EQ(needs.x, x);
    EXPECT_EQ(needs.y.shape, shape_.y);
    DEEPER_CHECK(needs.params.size() == shape_.params.size());
    tensors_.reserve(3 + static_cast<size_t>(dy_parts) + needs.dx_parts.size());
    const auto add = [&](const TensorDesc& desc) { return &tensors_.emplace_back(desc, device); };
    x_ = add(needs.x);
    y_ = add(needs.y);
    for (int i = 0; i < dy_parts; ++i) dy_.push_back(add(needs.y.Dense()));
    for (const TensorDesc& desc : needs.dx_parts) dx_.push_back(add(desc));
    if (needs.pooled_dx.has_value()) pooled_dx_ = add(needs.pooled_dx->desc);
    size_t elements = 0;
    const std::vector<size_t> offsets = PlaceParams(needs, elements);
    arenas_ = device.Allocate(2 * elements * sizeof(float));
    narrow_arenas_ = device.Allocate(2 * elements * sizeof(uint16_t));
    for (size_t i = 0; i < needs.params.size(); ++i) {
      const auto add_param = [&](std::vector<DeviceParam>& to, size_t offset) {
        to.emplace_back(shape_.params[i], needs.params[i], arenas_.as<float>() + offset,
                        narrow_arenas_.as<uint16_t>() + offset, device);
      };
      add_param(params_, offsets[i]);
      add_param(grads_, elements + offsets[i]);
    }
    saved_ = device.Allocate(needs.saved_bytes);
    workspace_ = device.Allocate(needs.workspace_bytes);
    Bind(options.training);
  }
  OpDriver(const OpDriver&) = delete;

  Op& op() { return *op_; }
  const OpShape& shape() const { return shape_; }
  // The context of the ops, except that `samples` is in host memory.
  const StepContext& step() const { return step_; }
  const std::vector<uint64_t>& samples() const { return samples_; }
  void SetStep(uint64_t seed, uint32_t epoch, const std::vector<uint64_t>& samples, int64_t rows = 0) {
    samples_ = samples;
    step_ = {.seed = seed, .samples = samples_.data(), .rows = rows, .epoch = epoch};
    device_samples_.Write(samples_);
    StepContext on_device = step_;
    on_device.samples = device_samples_.data();
    device_step_.Write({on_device});
  }
  // Adds a part of dy to every Backward: `dy` as canonical values, `argmax` in the device's layout.
  void SetPooledGradient(const PooledPart& part, const Values& dy, const std::vector<uint8_t>& argmax) {
    ASSERT_TRUE(op_->needs().takes_pooled_gradients);
    pooled_dy_ = std::make_unique<DeviceTensor>(part.desc, device_);
    pooled_dy_->Write(dy);
    argmax_ = std::make_unique<DeviceArray<uint8_t>>(argmax, device_);
    binding_.pooled_dy = {{part, pooled_dy_->data(), argmax_->data()}};
    op_->Bind(binding_);
  }
  Values Param(size_t i) { return params_[i].Read(); }
  Values Grad(size_t i) { return grads_[i].Read(); }
  void SetParams(const std::vector<Values>& values) {
    ASSERT_EQ(values.size(), params_.size());
    for (size_t i = 0; i < values.size(); ++i) params_[i].Write(values[i]);
  }

  Values Forward(const Values& x) {
    x_->Write(x);
    y_->Poison();
    Poison(saved_);
    Poison(workspace_);
    op_->Forward();
    EXPECT_EQ(x_->Read(), x) << "Forward wrote to x";
    return y_->Read();
  }
  // Returns the sum of the dx parts; empty if no dx was requested.
  Values Backward(const std::vector<Values>& dy) {
    EXPECT_EQ(dy.size(), dy_.size());
    for (size_t i = 0; i < dy.size(); ++i) dy_[i]->Write(dy[i]);
    for (DeviceTensor* part : dx_) part->Poison();
    if (pooled_dx_ != nullptr) pooled_dx_->Poison();
    for (DeviceParam& grad : grads_) grad.Poison();
    if (!op_->needs().backward_reads_x) x_->Poison();
    if (!op_->needs().backward_reads_y) y_->Poison();
    Poison(workspace_);
    op_->Backward();
    const bool none = dx_.empty() && pooled_dx_ == nullptr;
    Values sum(none ? 0 : static_cast<size_t>(x_->desc().shape.elements()));
    for (DeviceTensor* part : dx_) {
      const Values values = part->Read();
      std::transform(sum.begin(), sum.end(), values.begin(), sum.begin(), std::plus<float>());
    }
    if (pooled_dx_ != nullptr) {
      const Values pooled = pooled_dx_->Read();
      std::vector<uint8_t> argmax(pooled.size());
      device_.Copy(argmax.data(), saved_.data(), argmax.size());
      device_.Synchronize();
      AddSpread(*op_->needs().pooled_dx, pooled, argmax, x_->desc().shape, sum);
    }
    return sum;
  }

 private:
  void Bind(bool training) {
    samples_.resize(static_cast<size_t>(x_->desc().shape.n));
    for (size_t i = 0; i < samples_.size(); ++i) samples_[i] = 1000 + 7 * i;
    SetStep(42, 3, std::vector<uint64_t>(samples_));
    OpBinding& b = binding_;
    b.x = x_->data();
    b.y = y_->data();
    for (DeviceTensor* part : dy_) b.dy.push_back(part->data());
    for (DeviceTensor* part : dx_) b.dx.push_back(part->data());
    if (pooled_dx_ != nullptr) b.pooled_dx = pooled_dx_->data();
    for (size_t i = 0; i < params_.size(); ++i) {
      b.params.push_back(params_[i].data());
      const bool trained = training && !IsStatistic(shape_.params[i].role);
      b.grads.push_back(trained ? grads_[i].data() : nullptr);
      const bool narrow = device_.wants_narrow_params() && x_->desc().dtype == DType::kBf16;
      b.narrow_params.push_back(narrow ? params_[i].narrow() : nullptr);
    }
    b.saved = saved_.data();
    b.workspace = workspace_.data();
    b.step = device_step_.data();
    op_->Bind(b);
  }
  void Poison(const Buffer& buffer) {
    const std::vector<std::byte> ones(buffer.bytes(), std::byte{0xFF});
    device_.Copy(buffer.data(), ones.data(), ones.size());
    device_.Synchronize();
  }

  OpShape shape_;
  std::unique_ptr<Op> op_;
  Device& device_;
  std::vector<DeviceTensor> tensors_;  // reserved, so that pointers to elements stay valid
  DeviceTensor *x_ = nullptr, *y_ = nullptr, *pooled_dx_ = nullptr;
  std::vector<DeviceTensor*> dy_, dx_;
  std::vector<DeviceParam> params_, grads_;
  std::unique_ptr<DeviceTensor> pooled_dy_;
  std::unique_ptr<DeviceArray<uint8_t>> argmax_;
  OpBinding binding_;
  Buffer saved_, workspace_, arenas_, narrow_arenas_;
  std::vector<uint64_t> samples_;
  StepContext step_;
  DeviceArray<uint64_t> device_samples_;
  DeviceArray<StepContext> device_step_;
};

// y as a function of x and the parameters, all canonical, in double.
using Reference = std::function<Doubles(const Doubles& x, const std::vector<Doubles>& params)>;

struct CheckOptions {
  OpOptions op{.name = "op"};
  int dy_parts = 1;
  double tolerance = 0;  // 0: 1e-4 for fp32, 2e-2 for bf16
  int64_t samples = 50;  // elements of dx and of each gradient to compare with finite differences
  bool plain_x = false;  // x is images or vectors, not a feature map
  Values x = {};         // empty: random
};

// Compares `actual`, the op's gradient of one input, with central differences of `loss` in double. Skips an
// element if the slopes to both sides, or with a larger step, disagree: it is at a kink (ReLU, a tie of max
// pooling) and has no derivative.
inline void CheckGradient(const Values& actual, Doubles& input, const std::function<double()>& loss,
                          double tolerance, int64_t samples, const std::string& what) {
  const auto size = static_cast<int64_t>(input.size());
  ASSERT_EQ(static_cast<int64_t>(actual.size()), size) << what;
  Values checked;
  Doubles expected;
  const double here = loss();
  const auto agree = [](double a, double b) { return std::abs(a - b) <= 1e-3 * (1 + std::abs(a)); };
  // Steps of the golden ratio spread the elements over the whole tensor.
  const double stride = samples >= size ? 1.0 : 0.6180339887 * static_cast<double>(size);
  const int64_t tried = std::min(samples, size);
  for (int64_t t = 0; t < tried; ++t) {
    const auto i = static_cast<size_t>(std::fmod(static_cast<double>(t) * stride, static_cast<double>(size)));
    const auto slope = [&, value = input[i]](double step) {
      input[i] = value + step;
      const double there = loss();
      input[i] = value;
      return (there - here) / step;
    };
    constexpr double kFine = 1e-5, kCoarse = 2e-3;
    const double up = slope(kFine), down = slope(-kFine), fine = (up + down) / 2;
    if (!agree(up, down) || !agree(fine, (slope(kCoarse) + slope(-kCoarse)) / 2)) continue;
    checked.push_back(actual[i]);
    expected.push_back(fine);
  }
  EXPECT_GE(2 * static_cast<int64_t>(checked.size()), tried)
      << what << ": most elements are at kinks; use other values";
  ExpectClose(checked, expected, tolerance, what);
}

// Checks Forward, every gradient, and the op's contract: outputs overwritten, zero padding, the same bits on
// a second run.
inline void CheckOp(const OpParams& params, const Shape& x_shape, DType dtype, const Reference& reference,
                    const CheckOptions& options = {}) {
  SCOPED_TRACE(std::string(KindOf(params)) + " " + x_shape.ToString() + " " + NameOf(dtype));
  Device& device = TestDevice();
  const double tolerance = options.tolerance > 0 ? options.tolerance : dtype == DType::kF32 ? 1e-4 : 2e-2;
  const TensorDesc desc = !options.plain_x         ? device.FeatureMap(x_shape, dtype)
                          : x_shape.spatial() == 1 ? TensorDesc{x_shape, dtype}
                                                   : device.Images(x_shape, dtype);
  OpDriver driver(params, desc, options.op, device, options.dy_parts);
  const Values x = options.x.empty() ? RandomValues(x_shape.elements(), 1, dtype) : options.x;
  std::vector<Values> weights, dy;
  for (const ParamSpec& spec : driver.shape().params) {
    weights.push_back(RandomValues(spec.elements(), 10 + weights.size(), dtype));
    const float spread = spec.shape.size() > 1 ? 2 / std::sqrt(static_cast<float>(spec.fan_in())) : 1;
    for (float& w : weights.back()) w = ToFloat(ToBf16(w * spread));  // exact in either type
    if (spec.role == ParamRole::kRunningVar) std::fill(weights.back().begin(), weights.back().end(), 1.0f);
  }
  for (int i = 0; i < options.dy_parts; ++i) {
    dy.push_back(RandomValues(driver.shape().y.elements(), 20 + static_cast<uint64_t>(i), dtype));
  }

  Doubles x64 = ToDoubles(x);
  std::vector<Doubles> weights64;
  for (const Values& w : weights) weights64.push_back(ToDoubles(w));
  driver.SetParams(weights);
  const Values y = driver.Forward(x);
  ExpectClose(y, reference(x64, weights64), tolerance, "y");
  if (!options.op.training) return;

  const auto loss = [&] {
    const Doubles out = reference(x64, weights64);
    double sum = 0;
    for (size_t i = 0; i < out.size(); ++i) {
      for (const Values& part : dy) sum += part[i] * out[i];
    }
    return sum;
  };
  const Values dx = driver.Backward(dy);
  std::vector<Values> grads;
  if (options.op.want_dx) CheckGradient(dx, x64, loss, tolerance, options.samples, "dx");
  for (size_t i = 0; i < weights.size(); ++i) {
    const ParamSpec& spec = driver.shape().params[i];
    grads.push_back(IsStatistic(spec.role) ? Values{} : driver.Grad(i));
    if (!grads[i].empty())
      CheckGradient(grads[i], weights64[i], loss, tolerance, options.samples, spec.name + " gradient");
  }

  driver.SetParams(weights);
  EXPECT_EQ(driver.Forward(x), y) << "the second Forward differs";
  EXPECT_EQ(driver.Backward(dy), dx) << "the second Backward differs";
  for (size_t i = 0; i < grads.size(); ++i) {
    if (!grads[i].empty()) {
      EXPECT_EQ(driver.Grad(i), grads[i]) << "the second Backward differs";
    }
  }
}

}  // namespace deeper::testing
