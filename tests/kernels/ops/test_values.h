// The numbers in op tests: drawn, compared, and copied to and from a device as canonical values (fp32,
// N,C,H,W) for any layout and type.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/base/bf16.h"
#include "kernels/base/device.h"
#include "kernels/base/rng.h"
#include "kernels/ops/ops.h"
#include "tests/kernels/test_device.h"

namespace deeper::testing {

using Values = std::vector<float>;
using Doubles = std::vector<double>;

// The activation types that the device supports: bf16 needs AVX-512 on the CPU.
inline std::vector<DType> TestTypes() {
  if (TestDevice().bf16_support() == Bf16Support::kNone) return {DType::kF32};
  return {DType::kF32, DType::kBf16};
}

// Uniform in [-1, 1), rounded to `dtype`, so that an op and its reference start from the same numbers.
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

  // Sets all bits to one, a NaN in either type, so that reading unwritten memory is visible.
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
  // Also checks that padding channels are zero. Ignores the channels outside a slice.
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

// A float32 parameter or gradient on the device in the op's layout, and its bf16 copy. Another object owns
// their memory.
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
  // Also checks that the padding of blocks is zero.
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

}  // namespace deeper::testing
