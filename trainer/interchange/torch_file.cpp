#include "trainer/interchange/torch_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "kernels/base/status.h"
#include "trainer/interchange/number_type.h"
#include "trainer/interchange/pickle.h"
#include "trainer/interchange/zip_records.h"

namespace deeper {
namespace {

using Kind = PickleNode::Kind;
using Bytes = std::span<const uint8_t>;

constexpr uint8_t kZip[] = {'P', 'K', 3, 4};
// A pickle of the number 0x1950a86a20f9469cfc6c.
constexpr uint8_t kLegacy[] = {0x80, 2,    0x8a, 10,   0x6c, 0xfc, 0x9c, 0x46,
                               0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};

struct StorageType {
  const char* name;
  size_t bytes;
  NumberType numbers;
};
constexpr StorageType kStorageTypes[] = {
    {"torch.FloatStorage", 4, NumberType::kF32},      {"torch.HalfStorage", 2, NumberType::kF16},
    {"torch.BFloat16Storage", 2, NumberType::kBf16},  {"torch.DoubleStorage", 8, NumberType::kF64},
    {"torch.LongStorage", 8, NumberType::kIntegers},  {"torch.IntStorage", 4, NumberType::kIntegers},
    {"torch.ShortStorage", 2, NumberType::kIntegers}, {"torch.CharStorage", 1, NumberType::kIntegers},
    {"torch.ByteStorage", 1, NumberType::kIntegers},  {"torch.BoolStorage", 1, NumberType::kIntegers},
};

// ('storage', type, key, device, elements[, no view])
struct Storage {
  const StorageType* type = nullptr;
  std::string key;
  uint64_t elements = 0;
  uint64_t bytes() const { return elements * type->bytes; }  // does not overflow: ParseStorage
};

bool IsText(const PickleNode& node, std::string_view text) {
  return node.is(Kind::kText) && node.text == text;
}

std::optional<Storage> ParseStorage(const PickleNode& node) {
  if (!node.is(Kind::kPersistent) || !node.items[0]->is(Kind::kTuple)) return std::nullopt;
  const auto& id = node.items[0]->items;
  const bool known = (id.size() == 5 || (id.size() == 6 && id[5]->is(Kind::kNone))) &&
                     IsText(*id[0], "storage") && id[1]->is(Kind::kGlobal) && id[2]->is(Kind::kText) &&
                     id[4]->is(Kind::kInt) && id[4]->integer >= 0 && id[4]->integer < INT64_MAX / 8;
  if (!known) return std::nullopt;
  const auto* type = std::ranges::find(kStorageTypes, id[1]->text, &StorageType::name);
  if (type == std::end(kStorageTypes)) return std::nullopt;
  return Storage{type, id[2]->text, static_cast<uint64_t>(id[4]->integer)};
}

// A tuple of integers that are not negative.
std::optional<std::vector<int64_t>> ParseSizes(const PickleNode& node) {
  std::vector<int64_t> sizes;
  if (!node.is(Kind::kTuple)) return std::nullopt;
  for (const PickleNode* item : node.items) {
    if (!item->is(Kind::kInt) || item->integer < 0) return std::nullopt;
    sizes.push_back(item->integer);
  }
  return sizes;
}

// The number of elements; nothing unless the strides are those of a dense array.
std::optional<uint64_t> CountDense(const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides) {
  if (strides.size() != sizes.size()) return std::nullopt;
  uint64_t count = 1;
  bool dense = true;
  for (size_t i = sizes.size(); i-- > 0;) {
    dense = dense && (sizes[i] == 1 || static_cast<uint64_t>(strides[i]) == count);
    if (__builtin_mul_overflow(count, static_cast<uint64_t>(sizes[i]), &count)) return std::nullopt;
  }
  return dense || count == 0 ? std::optional(count) : std::nullopt;
}

struct Tensor {
  Storage storage;
  uint64_t offset = 0, count = 0;  // elements
  std::vector<int64_t> shape;
};

// _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata]), or the same inside
// _rebuild_parameter(tensor, requires_grad, hooks).
std::optional<Tensor> ParseTensor(const PickleNode& node) {
  const auto arguments = [](const PickleNode& call, std::string_view function,
                            size_t least) -> const std::vector<const PickleNode*>* {
    const bool fits = call.is(Kind::kCall) && call.items[0]->is(Kind::kGlobal) &&
                      call.items[0]->text == function && call.items[1]->is(Kind::kTuple) &&
                      call.items[1]->items.size() >= least;
    return fits ? &call.items[1]->items : nullptr;
  };
  const auto* parameter = arguments(node, "torch._utils._rebuild_parameter", 1);
  const PickleNode& inner = parameter == nullptr ? node : *parameter->front();
  const auto* rebuilt = arguments(inner, "torch._utils._rebuild_tensor_v2", 4);
  if (rebuilt == nullptr) rebuilt = arguments(inner, "torch._utils._rebuild_tensor", 4);
  if (rebuilt == nullptr) return std::nullopt;
  const auto storage = ParseStorage(*(*rebuilt)[0]);
  const PickleNode& offset = *(*rebuilt)[1];
  const auto sizes = ParseSizes(*(*rebuilt)[2]), strides = ParseSizes(*(*rebuilt)[3]);
  if (!storage || !sizes || !strides || !offset.is(Kind::kInt) || offset.integer < 0) return std::nullopt;
  const auto count = CountDense(*sizes, *strides);
  const auto first = static_cast<uint64_t>(offset.integer);
  if (!count || first > storage->elements || *count > storage->elements - first) return std::nullopt;
  return Tensor{*storage, first, *count, *sizes};
}

// The value of a key that is a text; nullptr if there is none.
const PickleNode* Find(const PickleNode& dict, std::string_view key) {
  for (size_t i = 0; i + 1 < dict.items.size(); i += 2) {
    if (IsText(*dict.items[i], key)) return dict.items[i + 1];
  }
  return nullptr;
}

// The bytes of each storage, by its key.
using Storages = std::map<std::string, Bytes>;

// `most`: of values, so that a small file cannot use all memory by naming one storage often.
absl::Status AddTensors(const PickleNode& root, const Storages& storages, size_t most, Weights& weights) {
  const PickleNode* dict = &root;
  for (const char* key : {"state_dict", "model_state_dict", "model"}) {
    const PickleNode* inner = root.is(Kind::kDict) ? Find(root, key) : nullptr;
    if (inner != nullptr && inner->is(Kind::kDict)) dict = inner;
  }
  if (!dict->is(Kind::kDict)) {
    return Unimplemented(
        "it is not a dictionary of tensors: in PyTorch, save model.state_dict() instead of ",
        dict->is(Kind::kCall) && dict->items[0]->is(Kind::kGlobal) ? dict->items[0]->text : "this object");
  }
  std::set<std::string> names;
  for (size_t i = 0; i < dict->items.size(); i += 2) {
    if (!dict->items[i]->is(Kind::kText)) return Unimplemented("a name of its tensors is not a text");
    const std::string name(absl::StripPrefix(dict->items[i]->text, "module."));
    if (!names.insert(name).second) return DataLoss("it has two tensors ", name);
    const std::optional<Tensor> tensor = ParseTensor(*dict->items[i + 1]);
    if (!tensor) return Unimplemented(name, " is not a dense, contiguous tensor of a known type");
    const auto bytes = storages.find(tensor->storage.key);
    if (bytes == storages.end()) return DataLoss("it has no numbers of ", name);
    const StorageType& type = *tensor->storage.type;
    if (bytes->second.size() != tensor->storage.bytes())
      return DataLoss("the numbers of ", name, " have ", bytes->second.size(), " bytes, expected ",
                      tensor->storage.bytes());
    if (type.numbers == NumberType::kIntegers) continue;
    if (tensor->count > most - weights.values.size())
      return Unimplemented("many of its tensors share their numbers");
    weights.tensors.push_back({.name = name,
                               .shape = tensor->shape,
                               .first = std::ssize(weights.values),
                               .count = static_cast<int64_t>(tensor->count)});
    AppendNumbers(type.numbers,
                  bytes->second.subspan(tensor->offset * type.bytes, tensor->count * type.bytes),
                  weights.values);
  }
  return absl::OkStatus();
}

absl::Status ParseZip(Bytes bytes, Weights& weights) {
  ASSIGN_OR_RETURN(const ZipRecords records, ListZip(bytes));
  const auto pickle_at =
      std::ranges::find_if(records, [](const auto& record) { return record.first.ends_with("/data.pkl"); });
  if (pickle_at == records.end())
    return Unimplemented("the archive has no data.pkl, so torch.save did not write it");
  const std::string folder = pickle_at->first.substr(0, pickle_at->first.size() - std::strlen("data.pkl"));
  const auto order = records.find(folder + "byteorder");
  if (order != records.end() && !std::ranges::equal(order->second, std::string_view("little")))
    return Unimplemented("its numbers are big-endian");
  ASSIGN_OR_RETURN(const Pickle pickle, ParsePickle(pickle_at->second));
  Storages storages;
  for (const auto& [name, content] : records) {
    absl::string_view key = name;
    if (absl::ConsumePrefix(&key, folder + "data/")) storages.emplace(key, content);
  }
  return AddTensors(*pickle.root, storages, bytes.size(), weights);
}

// Pickles of a magic number, the version, the system, the object, and the keys of its storages; then for each
// key the number of its elements (i64) and these.
absl::Status ParseLegacy(Bytes bytes, Weights& weights) {
  constexpr int64_t kProtocol = 1001;
  const size_t most = bytes.size();
  const auto next = [&bytes]() -> absl::StatusOr<Pickle> {
    ASSIGN_OR_RETURN(Pickle pickle, ParsePickle(bytes));
    bytes = bytes.subspan(pickle.bytes);
    return pickle;
  };
  RETURN_IF_ERROR(next().status());
  ASSIGN_OR_RETURN(const Pickle version, next());
  if (!version.root->is(Kind::kInt) || version.root->integer != kProtocol)
    return Unimplemented("it has another version than ", kProtocol);
  ASSIGN_OR_RETURN(const Pickle system, next());
  const PickleNode* little = system.root->is(Kind::kDict) ? Find(*system.root, "little_endian") : nullptr;
  if (little == nullptr || !little->is(Kind::kBool) || little->integer == 0)
    return Unimplemented("its numbers are big-endian");
  ASSIGN_OR_RETURN(const Pickle object, next());
  ASSIGN_OR_RETURN(const Pickle keys, next());
  if (!keys.root->is(Kind::kList)) return DataLoss("it has no list of its storages");

  std::map<std::string, Storage> known;
  for (const PickleNode& node : object.nodes) {
    if (const auto storage = ParseStorage(node)) known.insert_or_assign(storage->key, *storage);
  }
  Storages storages;
  for (const PickleNode* key : keys.root->items) {
    const auto storage = known.find(key->text);
    if (storage == known.end()) return DataLoss("it has a storage that no tensor uses");
    uint64_t elements = 0;
    if (bytes.size() < sizeof elements) return DataLoss("it is truncated");
    std::memcpy(&elements, bytes.data(), sizeof elements);
    bytes = bytes.subspan(sizeof elements);
    if (elements != storage->second.elements || bytes.size() < storage->second.bytes())
      return DataLoss("it is truncated, or a storage has another size than its tensors say");
    storages[key->text] = bytes.first(storage->second.bytes());
    bytes = bytes.subspan(storage->second.bytes());
  }
  if (!bytes.empty()) return DataLoss("it has ", bytes.size(), " bytes too many");
  return AddTensors(*object.root, storages, most, weights);
}

}  // namespace

bool IsTorchFile(Bytes first_bytes) {
  const auto begins = [first_bytes](Bytes mark) {
    return first_bytes.size() >= mark.size() && std::ranges::equal(first_bytes.first(mark.size()), mark);
  };
  return begins(kZip) || begins(kLegacy);
}

absl::StatusOr<Weights> ParseTorchFile(Bytes bytes, const std::string& path) {
  Weights weights = {.path = path};
  const absl::Status parsed =
      bytes.size() >= sizeof kZip && std::ranges::equal(bytes.first(sizeof kZip), kZip)
          ? ParseZip(bytes, weights)
          : ParseLegacy(bytes, weights);
  if (absl::IsDataLoss(parsed))
    return DataLoss(path, " is damaged: ", parsed.message(), "; copy or download it again");
  if (!parsed.ok()) return Unimplemented(path, ": ", parsed.message());
  return weights;
}

}  // namespace deeper
