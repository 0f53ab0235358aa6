#include "trainer/interchange/safetensors.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/io/atomic_file.h"
#include "data/io/protobuf.h"
#include "kernels/base/status.h"
#include "trainer/interchange/number_type.h"

namespace deeper {
namespace {

using nlohmann::json;

constexpr size_t kPrefix = 8;  // the length of the header, u64
constexpr uint64_t kLongestHeader = 100'000'000;
constexpr char kMetadata[] = "__metadata__";

struct Type {
  const char* name;
  uint64_t bytes;
  NumberType numbers;
};
constexpr Type kTypes[] = {
    {"F32", 4, NumberType::kF32},      {"F16", 2, NumberType::kF16},       {"BF16", 2, NumberType::kBf16},
    {"F64", 8, NumberType::kF64},      {"BOOL", 1, NumberType::kIntegers}, {"U8", 1, NumberType::kIntegers},
    {"I8", 1, NumberType::kIntegers},  {"U16", 2, NumberType::kIntegers},  {"I16", 2, NumberType::kIntegers},
    {"U32", 4, NumberType::kIntegers}, {"I32", 4, NumberType::kIntegers},  {"U64", 8, NumberType::kIntegers},
    {"I64", 8, NumberType::kIntegers},
};

struct Entry {
  TensorEntry tensor;
  NumberType numbers = NumberType::kF32;
  uint64_t begin = 0, end = 0;  // in the bytes after the header
};

// The text as an object without duplicate names; otherwise not an object.
json ParseHeader(std::string_view text) {
  std::vector<std::set<std::string>> names;  // of the objects that are open
  bool unique = true;
  const auto watch = [&](int, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) names.emplace_back();
    if (event == json::parse_event_t::object_end) names.pop_back();
    if (event == json::parse_event_t::key)
      unique = names.back().insert(parsed.get<std::string>()).second && unique;
    return true;
  };
  if (!text.starts_with('{')) return {};
  json header = json::parse(text, watch, /*allow_exceptions=*/false);
  return unique ? header : json();
}

bool IsSizes(const json& value) {
  return value.is_array() && std::ranges::all_of(value, [](const json& size) {
           return size.is_number_unsigned() && size.get<uint64_t>() <= INT64_MAX;
         });
}

absl::StatusOr<Entry> ParseEntry(const std::string& name, const json& value) {
  const auto damaged = [&name](const char* what) { return DataLoss("the entry of ", name, " ", what); };
  if (!value.is_object() || !value.contains("dtype") || !value["dtype"].is_string() ||
      !value.contains("shape") || !IsSizes(value["shape"]) || !value.contains("data_offsets") ||
      !IsSizes(value["data_offsets"]) || value["data_offsets"].size() != 2) {
    return damaged("is not a dtype, a shape and two data_offsets");
  }
  const auto dtype = value["dtype"].get<std::string>();
  const auto* type = std::ranges::find(kTypes, dtype, &Type::name);
  if (type == std::end(kTypes))
    return Unimplemented(name, " has type ", dtype, "; this build reads F32, F16, BF16 and F64");
  Entry entry = {.tensor = {.name = name, .shape = value["shape"].get<std::vector<int64_t>>()},
                 .numbers = type->numbers,
                 .begin = value["data_offsets"][0].get<uint64_t>(),
                 .end = value["data_offsets"][1].get<uint64_t>()};
  uint64_t bytes = type->bytes;
  for (const int64_t size : entry.tensor.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes)) return damaged("is too large");
  }
  if (entry.begin > entry.end || entry.end - entry.begin != bytes)
    return damaged("has data_offsets that do not fit its shape");
  entry.tensor.count = static_cast<int64_t>(bytes / type->bytes);
  return entry;
}

absl::StatusOr<json> ConfigOf(const json& metadata) {
  const bool strings = metadata.is_object() &&
                       std::ranges::all_of(metadata, [](const json& value) { return value.is_string(); });
  if (!strings) return DataLoss("its metadata are not strings");
  json config = json::object();
  if (metadata.contains("config")) {
    config = json::parse(metadata["config"].get<std::string>(), nullptr, /*allow_exceptions=*/false);
    if (!config.is_object()) return DataLoss("its config is not a JSON object");
  }
  if (!config.contains("model") && metadata.contains("model")) config["model"] = metadata["model"];
  return config;
}

absl::Status Parse(std::span<const uint8_t> bytes, Weights& weights) {
  if (bytes.size() < kPrefix) return DataLoss("it ends within its first 8 bytes");
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kPrefix);
  if (length > std::min<uint64_t>(kLongestHeader, bytes.size() - kPrefix))
    return DataLoss("its header of ", length, " bytes does not fit the file");
  const json header = ParseHeader({reinterpret_cast<const char*>(bytes.data()) + kPrefix, length});
  if (!header.is_object()) return DataLoss("its header is not a JSON object with unique names");
  const std::span<const uint8_t> content = bytes.subspan(kPrefix + length);
  if (header.contains(kMetadata)) {
    ASSIGN_OR_RETURN(weights.config, ConfigOf(header[kMetadata]));
  }
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == kMetadata) continue;
    ASSIGN_OR_RETURN(Entry entry, ParseEntry(name, value));
    entries.push_back(std::move(entry));
  }
  std::ranges::sort(entries, {}, [](const Entry& entry) { return std::pair(entry.begin, entry.end); });
  uint64_t end = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != end || entry.end > content.size())
      return DataLoss(entry.tensor.name, " is not directly behind the tensor before it");
    end = entry.end;
  }
  if (end != content.size()) return DataLoss("its tensors take ", end, " of ", content.size(), " bytes");
  for (Entry& entry : entries) {
    if (entry.numbers == NumberType::kIntegers) continue;
    entry.tensor.first = std::ssize(weights.values);
    AppendNumbers(entry.numbers, content.subspan(entry.begin, entry.end - entry.begin), weights.values);
    weights.tensors.push_back(std::move(entry.tensor));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteSafetensors(const Weights& weights, const std::string& path) {
  std::vector<const TensorEntry*> tensors;
  for (const TensorEntry& tensor : weights.tensors) tensors.push_back(&tensor);
  std::ranges::sort(tensors, {}, [](const TensorEntry* tensor) { return tensor->name; });
  json header = {{kMetadata,
                  {{"format", "pt"},
                   {"model", weights.config.value("model", "")},
                   {"num_classes", absl::StrCat(weights.config.value("num_classes", int64_t{0}))},
                   {"config", weights.config.dump()}}}};
  std::string content;
  for (const TensorEntry* tensor : tensors) {
    const size_t begin = content.size(), bytes = static_cast<size_t>(tensor->count) * sizeof(float);
    content.append(reinterpret_cast<const char*>(weights.values.data() + tensor->first), bytes);
    header[tensor->name] = {
        {"dtype", "F32"}, {"shape", tensor->shape}, {"data_offsets", {begin, begin + bytes}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the numbers are aligned
  return WriteFileAtomically(path, absl::StrCat(FixedBytes(uint64_t{text.size()}), text, content));
}

absl::StatusOr<Weights> ParseSafetensors(std::span<const uint8_t> bytes, const std::string& path) {
  Weights weights = {.path = path};
  const absl::Status parsed = Parse(bytes, weights);
  if (absl::IsUnimplemented(parsed)) return Unimplemented(path, ": ", parsed.message());
  if (!parsed.ok())
    return DataLoss(path, " is damaged, or not a safetensors file: ", parsed.message(),
                    "; copy or download it again");
  return weights;
}

}  // namespace deeper
