#include "trainer/interchange/caffe_model.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "data/io/protobuf.h"
#include "kernels/base/status.h"
#include "trainer/interchange/number_type.h"

namespace deeper {
namespace {

using Bytes = std::span<const uint8_t>;

// Field numbers of caffe.proto.
constexpr int kNetLayersV1 = 2, kNetLayers = 100;
struct LayerFields {
  int name, blobs;
};
constexpr LayerFields kV1 = {4, 6}, kV2 = {1, 7};
constexpr int kV0InV1 = 1;
constexpr int kBlobData = 5, kBlobShape = 7, kBlobDoubles = 8, kBlobWidth = 4;

struct Blob {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

std::string Text(Bytes bytes) {
  return {bytes.begin(), bytes.end()};
}

bool ParseShape(Bytes bytes, std::vector<int64_t>& shape) {
  WireReader reader(bytes);
  WireField field;
  while (reader.Next(&field)) {
    if (field.number != 1) continue;
    if (field.type == WireType::kVarint) shape.push_back(static_cast<int64_t>(field.value));
    if (field.type != WireType::kLengthDelimited) continue;
    WireReader packed(field.bytes);
    uint64_t size = 0;
    while (packed.NextVarint(&size)) shape.push_back(static_cast<int64_t>(size));
    if (!packed.ok()) return false;
  }
  return reader.ok();
}

// Whether the shape has as many elements as there are values.
bool Fits(const Blob& blob) {
  uint64_t count = 1;
  for (const int64_t size : blob.shape) {
    if (size < 0 || __builtin_mul_overflow(count, static_cast<uint64_t>(size), &count)) return false;
  }
  return count == blob.values.size();
}

absl::StatusOr<Blob> ParseBlob(Bytes bytes) {
  Blob blob;
  std::vector<int64_t> legacy(4, 1);
  bool has_shape = false;
  WireReader reader(bytes);
  WireField field;
  while (reader.Next(&field)) {
    if (field.number == kBlobShape) {
      has_shape = true;
      if (!ParseShape(field.bytes, blob.shape)) return DataLoss("a blob is damaged");
    } else if (field.number <= kBlobWidth && field.type == WireType::kVarint) {
      if (field.number >= 1)
        legacy[static_cast<size_t>(field.number - 1)] = static_cast<int64_t>(field.value);
    } else if (field.number == kBlobData && field.type == WireType::kFixed32) {
      blob.values.push_back(std::bit_cast<float>(static_cast<uint32_t>(field.value)));
    } else if (field.number == kBlobData && field.bytes.size() % sizeof(float) == 0) {
      AppendNumbers(NumberType::kF32, field.bytes, blob.values);
    } else if (field.number == kBlobDoubles && field.bytes.size() % sizeof(double) == 0) {
      AppendNumbers(NumberType::kF64, field.bytes, blob.values);
    }
  }
  if (!has_shape) blob.shape = legacy;
  if (!reader.ok() || !Fits(blob)) return DataLoss("a blob is damaged, or its shape is not that of its data");
  return blob;
}

struct NamePair {
  const char* caffe;
  const char* ours;
};
constexpr NamePair kLayers[] = {{"conv1/7x7_s2", "conv1.conv"},   {"conv2/3x3_reduce", "conv2.conv"},
                                {"conv2/3x3", "conv3.conv"},      {"loss1/conv", "aux1.conv.conv"},
                                {"loss1/fc", "aux1.fc1"},         {"loss1/classifier", "aux1.fc2"},
                                {"loss2/conv", "aux2.conv.conv"}, {"loss2/fc", "aux2.fc1"},
                                {"loss2/classifier", "aux2.fc2"}, {"loss3/classifier", "fc"}};
constexpr NamePair kBranches[] = {{"1x1", "branch1"},   {"3x3_reduce", "branch2.0"},
                                  {"3x3", "branch2.1"}, {"5x5_reduce", "branch3.0"},
                                  {"5x5", "branch3.1"}, {"pool_proj", "branch4.1"}};

// The name in googlenet-bvlc of a layer of bvlc_googlenet; others keep theirs.
std::string OurName(const std::string& layer) {
  const auto* whole = std::ranges::find(kLayers, std::string_view(layer), &NamePair::caffe);
  if (whole != std::end(kLayers)) return whole->ours;
  absl::string_view rest = layer;
  const size_t slash = layer.find('/');
  if (!absl::ConsumePrefix(&rest, "inception_") || slash == std::string::npos) return layer;
  const auto* branch =
      std::ranges::find(kBranches, std::string_view(layer).substr(slash + 1), &NamePair::caffe);
  if (branch == std::end(kBranches)) return layer;
  return absl::StrCat("inception", rest.substr(0, rest.find('/')), ".", branch->ours, ".conv");
}

// Old files give every blob four sizes: [1, 1, outputs, inputs], [1, 1, 1, outputs].
std::vector<int64_t> WithoutLeadingOnes(std::vector<int64_t> shape, size_t dimensions) {
  while (shape.size() > dimensions && shape.front() == 1) shape.erase(shape.begin());
  return shape;
}

absl::Status ParseLayer(Bytes bytes, LayerFields fields, Weights& weights) {
  std::string name;
  std::vector<Blob> blobs;
  WireReader reader(bytes);
  WireField field;
  while (reader.Next(&field)) {
    if (field.number == fields.name && field.type == WireType::kLengthDelimited) name = Text(field.bytes);
    if (fields.name == kV1.name && field.number == kV0InV1)
      return Unimplemented(
          "its layers have the oldest format (V0): upgrade it with Caffe's upgrade_net_proto_binary");
    if (field.number != fields.blobs || field.type != WireType::kLengthDelimited) continue;
    ASSIGN_OR_RETURN(Blob blob, ParseBlob(field.bytes));
    blobs.push_back(std::move(blob));
  }
  if (!reader.ok()) return DataLoss("a layer is damaged");
  if (blobs.empty()) return absl::OkStatus();
  if (blobs.size() != 2)
    return Unimplemented("layer ", name, " has ", blobs.size(), " blobs, not weights and biases");
  const std::string ours = OurName(name);
  const bool convolution = !ours.ends_with("fc") && !ours.ends_with("fc1") && !ours.ends_with("fc2");
  for (const auto& [suffix, dimensions, blob] :
       {std::tuple(".weight", size_t{convolution ? 4u : 2u}, &blobs[0]),
        std::tuple(".bias", size_t{1}, &blobs[1])}) {
    weights.tensors.push_back({.name = ours + suffix,
                               .shape = WithoutLeadingOnes(blob->shape, dimensions),
                               .first = std::ssize(weights.values),
                               .count = std::ssize(blob->values)});
    weights.values.insert(weights.values.end(), blob->values.begin(), blob->values.end());
  }
  return absl::OkStatus();
}

absl::Status Parse(Bytes bytes, Weights& weights) {
  WireReader reader(bytes);
  WireField field;
  while (reader.Next(&field)) {
    if (field.type != WireType::kLengthDelimited) continue;
    if (field.number == kNetLayersV1) RETURN_IF_ERROR(ParseLayer(field.bytes, kV1, weights));
    if (field.number == kNetLayers) RETURN_IF_ERROR(ParseLayer(field.bytes, kV2, weights));
  }
  if (!reader.ok()) return DataLoss("it is truncated, or not a network of Caffe");
  if (weights.tensors.empty()) return DataLoss("it has no weights");
  std::set<std::string> names;
  for (const TensorEntry& tensor : weights.tensors) {
    if (!names.insert(tensor.name).second) return DataLoss("it has two layers with ", tensor.name);
  }
  return absl::OkStatus();
}

}  // namespace

bool MayBeCaffeModel(Bytes first_bytes) {
  constexpr uint8_t kName = 1 << 3 | 2, kLayerV1 = kNetLayersV1 << 3 | 2, kLayer[] = {0xa2, 6};
  if (first_bytes.size() < 2) return false;
  return first_bytes[0] == kName || first_bytes[0] == kLayerV1 ||
         std::ranges::equal(first_bytes.first(2), kLayer);
}

absl::StatusOr<Weights> ParseCaffeModel(Bytes bytes, const std::string& path) {
  Weights weights = {.path = path};
  const absl::Status parsed = Parse(bytes, weights);
  if (absl::IsDataLoss(parsed))
    return DataLoss(path, " is damaged, or not a file of Caffe: ", parsed.message());
  if (!parsed.ok()) return Unimplemented(path, ": ", parsed.message());
  const auto classifier = std::ranges::find(weights.tensors, "fc.bias", &TensorEntry::name);
  if (classifier != weights.tensors.end() && classifier->shape.size() == 1) {
    weights.config = {{"model", "googlenet-bvlc"},
                      {"num_classes", classifier->shape[0]},
                      {"channels", 3},
                      {"val_preset", "bvlc"}};
    weights.warnings.push_back(absl::StrCat(
        path, ": layers of bvlc_googlenet; images are prepared as Caffe does (--val_preset=bvlc)"));
  }
  return weights;
}

}  // namespace deeper
