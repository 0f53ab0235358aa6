#include "data/io/mat_file.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "data/io/inflate.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

using Bytes = std::span<const uint8_t>;

static_assert(std::endian::native == std::endian::little);

constexpr size_t kHeaderBytes = 128, kTagBytes = 8;
constexpr size_t kMaxInflatedBytes = size_t{64} << 20;
constexpr int kMaxDepth = 8;  // of nested structures

// Types of data elements.
enum MiType : uint32_t {
  kInt8 = 1,
  kUint8 = 2,
  kInt16 = 3,
  kUint16 = 4,
  kInt32 = 5,
  kUint32 = 6,
  kSingle = 7,
  kDouble = 9,
  kInt64 = 12,
  kUint64 = 13,
  kMatrix = 14,
  kCompressed = 15,
  kUtf8 = 16,
  kUtf16 = 17,
};
// Classes of arrays; the numeric ones are consecutive.
enum MxClass : uint8_t { kStruct = 2, kChar = 4, kFirstNumeric = 6, kLastNumeric = 15 };

absl::Status Damaged() {
  return DataLoss("damaged MAT-file");
}

template <class T>
T Load(Bytes bytes, size_t at) {
  T value;
  std::memcpy(&value, &bytes[at], sizeof value);
  return value;
}

struct Element {
  uint32_t type = 0;
  Bytes data;
};

// Takes the next element off `rest`. If the upper half of the tag holds a size, at most 4 bytes of data
// follow, and tag and data fill 8 bytes. Other data is padded to a multiple of 8, unless it is compressed.
absl::StatusOr<Element> Next(Bytes* rest) {
  if (rest->size() < kTagBytes) return Damaged();
  const auto word = Load<uint32_t>(*rest, 0);
  size_t at = kTagBytes, bytes = Load<uint32_t>(*rest, 4);
  uint32_t type = word;
  if (word >> 16 != 0) {
    at = 4;
    bytes = word >> 16;
    type = word & 0xffff;
    if (bytes > 4) return Damaged();
  }
  if (bytes > rest->size() - at) return Damaged();
  const Element element{type, rest->subspan(at, bytes)};
  const size_t taken = type == kCompressed ? at + bytes : (at + bytes + 7) / 8 * 8;
  *rest = rest->subspan(std::min(taken, rest->size()));
  return element;
}

template <class T>
std::vector<double> ToDoubles(Bytes data) {
  std::vector<double> values(data.size() / sizeof(T));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(Load<T>(data, i * sizeof(T)));
  return values;
}

// Numbers of any class are stored in the smallest type that holds the array.
absl::StatusOr<std::vector<double>> Numbers(const Element& element) {
  const auto [type, data] = element;
  if (type == kInt8) return ToDoubles<int8_t>(data);
  if (type == kUint8 || type == kUtf8) return ToDoubles<uint8_t>(data);
  if (type == kInt16) return ToDoubles<int16_t>(data);
  if (type == kUint16 || type == kUtf16) return ToDoubles<uint16_t>(data);
  if (type == kInt32) return ToDoubles<int32_t>(data);
  if (type == kUint32) return ToDoubles<uint32_t>(data);
  if (type == kSingle) return ToDoubles<float>(data);
  if (type == kDouble) return ToDoubles<double>(data);
  if (type == kInt64) return ToDoubles<int64_t>(data);
  if (type == kUint64) return ToDoubles<uint64_t>(data);
  return Damaged();
}

absl::StatusOr<MatArray> ParseArray(Bytes rest, int depth);

// Field names, each zero-padded to one width, then all values of the first structure, of the second, and so
// on.
absl::Status ParseStruct(Bytes rest, uint64_t count, int depth, MatArray* array) {
  absl::StatusOr<Element> width = Next(&rest);
  if (!width.ok() || width->data.size() != 4) return Damaged();
  absl::StatusOr<Element> names = Next(&rest);
  const auto bytes = Load<uint32_t>(width->data, 0);
  if (!names.ok() || bytes == 0 || names->data.size() % bytes != 0) return Damaged();
  for (Bytes left = names->data; !left.empty(); left = left.subspan(bytes)) {
    const auto* text = reinterpret_cast<const char*>(left.data());
    array->fields.emplace_back(text, strnlen(text, bytes));
  }
  const uint64_t limit = rest.size() / kTagBytes;  // each value has at least a tag
  if (count > limit || array->fields.size() > limit || count * array->fields.size() > limit) return Damaged();
  for (uint64_t i = 0; i < count * array->fields.size(); ++i) {
    absl::StatusOr<Element> value = Next(&rest);
    if (!value.ok() || value->type != kMatrix) return Damaged();
    ASSIGN_OR_RETURN(array->elements.emplace_back(), ParseArray(value->data, depth + 1));
  }
  return absl::OkStatus();
}

// The content of a matrix element: flags, dimensions, name, data. An element without content is an empty
// array.
absl::StatusOr<MatArray> ParseArray(Bytes rest, int depth) {
  MatArray parsed;
  if (rest.empty()) return parsed;
  if (depth > kMaxDepth) return Damaged();
  absl::StatusOr<Element> flags = Next(&rest), dims = Next(&rest), name = Next(&rest);
  if (!flags.ok() || flags->data.size() != 8 || !dims.ok() || !name.ok()) return Damaged();
  parsed.name.assign(name->data.begin(), name->data.end());
  uint64_t count = 1;
  for (size_t i = 0; i + 4 <= dims->data.size(); i += 4) {
    if (__builtin_mul_overflow(count, Load<uint32_t>(dims->data, i), &count)) return Damaged();
  }
  const uint8_t mx_class = flags->data[0];
  if (mx_class == kStruct) {
    RETURN_IF_ERROR(ParseStruct(rest, count, depth, &parsed));
    return parsed;
  }
  if (mx_class != kChar && (mx_class < kFirstNumeric || mx_class > kLastNumeric))
    return Unimplemented("MAT-file with an array of class ", int{mx_class});
  absl::StatusOr<Element> data = Next(&rest);
  if (!data.ok()) return Damaged();
  ASSIGN_OR_RETURN(std::vector<double> values, Numbers(*data));
  if (mx_class == kChar) {
    for (const double c : values) parsed.text += c >= 0 && c < 128 ? static_cast<char>(c) : '?';
  } else if (values.size() == count) {
    parsed.numbers = std::move(values);
  } else {
    return Damaged();
  }
  return parsed;
}

}  // namespace

absl::StatusOr<MatArray> ReadMatVariable(Bytes file, const std::string& name) {
  if (file.size() < kHeaderBytes || file[125] != 1 || file[126] != 'I' || file[127] != 'M')
    return DataLoss("not a little-endian MAT-file of level 5");
  std::vector<uint8_t> inflated;
  for (Bytes rest = file.subspan(kHeaderBytes); !rest.empty();) {
    absl::StatusOr<Element> element = Next(&rest);
    if (element.ok() && element->type == kCompressed) {
      ASSIGN_OR_RETURN(inflated, Inflate(element->data, kMaxInflatedBytes));
      Bytes inner = inflated;
      element = Next(&inner);
    }
    RETURN_IF_ERROR(element.status());
    if (element->type != kMatrix) continue;
    ASSIGN_OR_RETURN(MatArray parsed, ParseArray(element->data, 0));
    if (parsed.name == name) return parsed;
  }
  return NotFound("the MAT-file has no variable ", name);
}

}  // namespace deeper
