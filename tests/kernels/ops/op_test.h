// Drives one op with canonical values (fp32, N,C,H,W), whatever its layout, type and device, and checks it
// three ways: against a naive reference, against finite differences of that reference, and against its own
// contract (what it may read and must write).
//
//   CheckOp(Conv2dParams{...}, {2, 24, 7, 7}, DType::kF32, reference);  // a whole test
//   OpDriver driver(params, x_desc, options, device, dy_parts);         // its pieces, for benchmarks too
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/base/bf16.h"
#include "kernels/base/check.h"
#include "kernels/base/device.h"
#include "kernels/base/rng.h"
#include "kernels/ops/ops.h"
#include "tests/kernels/test_device.h"

namespace deeper::testing {

using Values = std::vector<float>;
using Doubles = std::vector<double>;

// The types of activations that the device computes in: bf16 needs AVX-512 on the CPU.
inline std::vector<DType> TestTypes() {
  if (TestDevice().type() == DeviceType::kCpu && TestDevice().channel_block() < 16) return {DType::kF32};
  return {DType::kF32, DType::kBf16};
}

// Uniform in [-1, 1), rounded to what `dtype` can hold, so that an op and its reference start from the same
// numbers.
inline Values RandomValues(int64_t count, uint64_t seed, DType dtype = DType::kF32) {
  Rng rng(seed, RandomStream("test"), 0, 0);
  Values values(static_cast<size_t>(count));
  for (float& v : values) {
    v = 2 * rng.NextUnit() - 1;
    if (dtype == DType::kBf16) v = ToFloat(ToBf16(v));
  }
  return values;
}

inline Doubles ToDoubles(const Values& values) {
  return Doubles(values.begin(), values.end());
}

// |actual - expected| <= tolerance * (|expected| + rms of expected), element by element.
inline void ExpectClose(const Values& actual, const Doubles& expected, double tolerance,
                        const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  double squares = 0;
  for (const double e : expected) squares += e * e;
  const double rms = std::sqrt(squares / static_cast<double>(std::max<size_t>(expected.size(), 1)));
  int reported = 0;
  for (size_t i = 0; i < actual.size() && reported < 5; ++i) {
    if (std::abs(actual[i] - expected[i]) <= tolerance * (std::abs(expected[i]) + rms))
      continue;  // false for NaN
    ADD_FAILURE() << what << "[" << i << "] is " << actual[i] << ", expected " << expected[i];
    ++reported;
  }
}

// One tensor on the device, written and read as canonical values.
class DeviceTensor {
 public:
  DeviceTensor(const TensorDesc& desc, Device& device)
      : desc_(desc), device_(device), memory_(device.Allocate(desc.bytes())), staged_(desc.bytes()) {}

  void* data() const { return memory_.data(); }
  const TensorDesc& desc() const { return desc_; }

  // All bits one: a NaN in either type, so that reading what was not written shows.
  void Poison() {
    std::memset(staged_.data(), 0xFF, staged_.size());
    device_.Copy(memory_.data(), staged_.data(), staged_.size());
    device_.Synchronize();
  }
  void Write(const Values& values) {
    ASSERT_EQ(static_cast<int64_t>(values.size()), desc_.shape.elements());
    std::fill(staged_.begin(), staged_.end(), desc_.pitch == 0 ? std::byte{0} : std::byte{0xFF});
    ForEach([&](size_t canonical, size_t stored) { SetElement(stored, values[canonical]); });
    device_.Copy(memory_.data(), staged_.data(), staged_.size());
    device_.Synchronize();
  }
  // Also checks that the channels that pad the blocks are zero. What lies beside a slice is its maker's own.
  Values Read() {
    device_.Copy(staged_.data(), memory_.data(), staged_.size());
    device_.Synchronize();
    Values values(static_cast<size_t>(desc_.shape.elements()));
    ForEach([&](size_t canonical, size_t stored) {
      values[canonical] = Element(stored);
      SetElement(stored, 0);
    });
    const auto zero = [](std::byte b) { return b == std::byte{0}; };
    if (desc_.pitch == 0) {
      EXPECT_TRUE(std::all_of(staged_.begin(), staged_.end(), zero)) << "padding channels are not zero";
    }
    return values;
  }

 private:
  template <class Visit>
  void ForEach(const Visit& visit) const {
    const Shape& s = desc_.shape;
    size_t canonical = 0;
    for (int64_t n = 0; n < s.n; ++n) {
      for (int64_t c = 0; c < s.c; ++c) {
        for (int64_t h = 0; h < s.h; ++h) {
          for (int64_t w = 0; w < s.w; ++w) visit(canonical++, static_cast<size_t>(desc_.Offset(n, c, h, w)));
        }
      }
    }
  }
  float Element(size_t i) const {
    if (desc_.dtype == DType::kBf16) return ToFloat(reinterpret_cast<const bf16*>(staged_.data())[i]);
    return reinterpret_cast<const float*>(staged_.data())[i];
  }
  void SetElement(size_t i, float value) {
    if (desc_.dtype == DType::kBf16) {
      reinterpret_cast<bf16*>(staged_.data())[i] = ToBf16(value);
    } else {
      reinterpret_cast<float*>(staged_.data())[i] = value;
    }
  }

  TensorDesc desc_;
  Device& device_;
  Buffer memory_;
  std::vector<std::byte> staged_;
};

// One float32 parameter or gradient on the device, in the op's own layout, and its copy in bf16, both in
// somebody else's memory.
class DeviceParam {
 public:
  DeviceParam(const ParamSpec& spec, const ParamLayout& layout, float* data, uint16_t* narrow, Device& device)
      : spec_(spec), layout_(layout), data_(data), narrow_(narrow), device_(device) {}

  float* data() const { return data_; }
  void* narrow() const { return narrow_; }
  void Poison() {
    Store(Values(static_cast<size_t>(layout_.stored_elements), std::bit_cast<float>(0xFFFFFFFFu)));
  }
  void Write(const Values& canonical) {
    ASSERT_EQ(static_cast<int64_t>(canonical.size()), spec_.elements());
    Values stored(static_cast<size_t>(layout_.stored_elements));
    PackParam(spec_, layout_, canonical.data(), stored.data());
    Store(stored);
  }
  // Also checks that what pads the blocks is zero.
  Values Read() {
    Values stored(static_cast<size_t>(layout_.stored_elements));
    device_.Copy(stored.data(), data_, stored.size() * sizeof(float));
    device_.Synchronize();
    Values canonical(static_cast<size_t>(spec_.elements())), again(stored.size());
    UnpackParam(spec_, layout_, stored.data(), canonical.data());
    PackParam(spec_, layout_, canonical.data(), again.data());
    EXPECT_EQ(std::memcmp(stored.data(), again.data(), stored.size() * sizeof(float)), 0)
        << spec_.name << ": the padding is not zero";
    return canonical;
  }

 private:
  void Store(const Values& stored) {
    std::vector<bf16> narrow(stored.size());
    std::transform(stored.begin(), stored.end(), narrow.begin(), ToBf16);
    device_.Copy(data_, stored.data(), stored.size() * sizeof(float));
    device_.Copy(narrow_, narrow.data(), narrow.size() * sizeof(bf16));
    device_.Synchronize();
  }

  ParamSpec spec_;
  ParamLayout layout_;
  float* data_;
  uint16_t* narrow_;
  Device& device_;
};

// Offsets of an op's parameters in one array, and its size: each on 64 bytes, but for those that must lie one
// behind the other.
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

// The definition of PooledPart: adds the gradient of the pool, [n, c, h, w], to that of what was pooled.
// `argmax` lies as the pool's output does.
inline void AddSpread(const PooledPart& part, const Values& dy, const std::vector<uint8_t>& argmax,
                      const Shape& x, Values& sum) {
  const Shape& y = part.desc.shape;
  for (int64_t i = 0; i < y.elements(); ++i) {
    const int64_t column = i % y.w, row = i / y.w % y.h, image = i / y.spatial();  // and channel
    const auto stored = static_cast<size_t>(part.desc.Offset(image / y.c, image % y.c, row, column));
    const int64_t at_row = row * part.stride - part.pad + argmax[stored] / part.kernel;
    const int64_t at_column = column * part.stride - part.pad + argmax[stored] % part.kernel;
    ASSERT_TRUE(at_row >= 0 && at_row < x.h && at_column >= 0 && at_column < x.w);
    sum[static_cast<size_t>((image * x.h + at_row) * x.w + at_column)] += dy[static_cast<size_t>(i)];
  }
}

// A prepared op bound to its own memory. Before each call everything the op must not rely on is poisoned.
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
  // As ops see it, but for `samples`, which lie on the host.
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
  // One more part of dy for every Backward: `dy` as canonical values, `argmax` as it lies in memory.
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
  // The sum of the parts that the op hands over; empty where no dx was wanted.
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
  std::vector<DeviceTensor> tensors_;  // reserved: pointers into it stay
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

// Compares `actual`, the gradient the op computed of one input, with central differences of `loss` in double.
// An element where the slopes to both sides or with a larger step disagree lies at a kink (ReLU, a tie of max
// pooling), where there is no derivative: skipped.
inline void CheckGradient(const Values& actual, Doubles& input, const std::function<double()>& loss,
                          double tolerance, int64_t samples, const std::string& what) {
  const auto size = static_cast<int64_t>(input.size());
  ASSERT_EQ(static_cast<int64_t>(actual.size()), size) << what;
  Values checked;
  Doubles expected;
  const double here = loss();
  const auto agree = [](double a, double b) { return std::abs(a - b) <= 1e-3 * (1 + std::abs(a)); };
  // Steps of the golden ratio visit elements spread over the whole tensor.
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
      << what << ": most elements lie at kinks; the test shows little";
  ExpectClose(checked, expected, tolerance, what);
}

// Forward, every gradient, and the op's contract: outputs overwritten, zero padding, the same bits when run
// again.
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
