// The parts of protobuf's wire format that our files need. A message is the concatenation of its fields, and
// a field begins with its number in the .proto file and its type.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

namespace deeper {

static_assert(std::endian::native == std::endian::little, "fixed fields are little-endian");

enum class WireType : uint8_t { kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5 };

template <class Number>
std::string FixedBytes(Number value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

inline std::string Varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

inline std::string FieldKey(int field, WireType type) {
  return Varint(static_cast<uint64_t>(field) << 3 | static_cast<uint64_t>(type));
}

inline std::string IntField(int field, int64_t value) {
  return FieldKey(field, WireType::kVarint) + Varint(static_cast<uint64_t>(value));
}
inline std::string FloatField(int field, float value) {
  return FieldKey(field, WireType::kFixed32) + FixedBytes(value);
}
inline std::string DoubleField(int field, double value) {
  return FieldKey(field, WireType::kFixed64) + FixedBytes(value);
}
// What comes before `bytes` bytes of a message, a string or packed numbers.
inline std::string LengthKey(int field, size_t bytes) {
  return FieldKey(field, WireType::kLengthDelimited) + Varint(bytes);
}
// A message, a string or packed numbers.
inline std::string BytesField(int field, std::string_view content) {
  return LengthKey(field, content.size()).append(content);
}

}  // namespace deeper
