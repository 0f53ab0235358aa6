// The types of numbers in weights of other programs, and their conversion to float32.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace deeper {

// kIntegers: not weights, such as PyTorch's num_batches_tracked.
enum class NumberType : uint8_t { kF32, kF16, kBf16, kF64, kIntegers };

inline float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
  if (exponent == 0) {  // zero or subnormal
    const float value = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
  }
  const uint32_t wide = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
}

// Appends the little-endian numbers in `bytes`, whose size is a multiple of the type's, to `values`.
inline void AppendNumbers(NumberType type, std::span<const uint8_t> bytes, std::vector<float>& values) {
  const auto append = [&]<class T>(T, auto convert) {
    const size_t first = values.size(), count = bytes.size() / sizeof(T);
    values.resize(first + count);
    for (size_t i = 0; i < count; ++i) {
      T number;
      std::memcpy(&number, bytes.data() + i * sizeof(T), sizeof(T));
      values[first + i] = convert(number);
    }
  };
  switch (type) {
    case NumberType::kF32:
      return append(float{}, [](float number) { return number; });
    case NumberType::kF16:
      return append(uint16_t{}, HalfToFloat);
    case NumberType::kBf16:
      return append(uint16_t{},
                    [](uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); });
    case NumberType::kF64:
      return append(double{}, [](double number) { return static_cast<float>(number); });
    case NumberType::kIntegers:
      return;
  }
}

}  // namespace deeper
