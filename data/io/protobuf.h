// The parts of protobuf's wire format that our files need. A message is the concatenation of its fields, and
// a field begins with its number in the .proto file and its type.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
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

// One field of a message.
struct WireField {
  int number = 0;
  WireType type = WireType::kVarint;
  uint64_t value = 0;                   // of a varint, or the bits of a fixed number
  std::span<const uint8_t> bytes = {};  // of a length-delimited field
};

// Reads the fields of a message in their order. A damaged one ends the reading, and ok() is then false.
class WireReader {
 public:
  explicit WireReader(std::span<const uint8_t> message) : rest_(message) {}

  bool Next(WireField* field) {
    if (rest_.empty() || !ok_) return false;
    const uint64_t key = Varint();
    *field = {.number = static_cast<int>(key >> 3 & 0x1fffffff), .type = static_cast<WireType>(key & 7)};
    switch (field->type) {
      case WireType::kVarint:
        field->value = Varint();
        break;
      case WireType::kFixed64:
        field->value = Fixed(8);
        break;
      case WireType::kFixed32:
        field->value = Fixed(4);
        break;
      case WireType::kLengthDelimited:
        field->bytes = Take(Varint());
        break;
      default:
        ok_ = false;
    }
    return ok_;
  }
  // Reads packed numbers in place of fields.
  bool NextVarint(uint64_t* value) {
    if (rest_.empty() || !ok_) return false;
    *value = Varint();
    return ok_;
  }
  bool ok() const { return ok_; }

 private:
  std::span<const uint8_t> Take(uint64_t count) {
    if (count > rest_.size()) {
      ok_ = false;
      return {};
    }
    const auto taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  uint64_t Fixed(size_t bytes) {
    const auto from = Take(bytes);
    uint64_t value = 0;
    if (!from.empty()) std::memcpy(&value, from.data(), bytes);
    return value;
  }
  uint64_t Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && ok_; shift += 7) {
      const auto byte = Take(1);
      if (byte.empty()) return 0;
      value |= static_cast<uint64_t>(byte[0] & 0x7f) << shift;
      if (byte[0] < 0x80) return value;
    }
    ok_ = false;
    return 0;
  }

  std::span<const uint8_t> rest_;
  bool ok_ = true;
};

}  // namespace deeper
