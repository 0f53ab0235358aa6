#include "trainer/checkpoint/checkpoint_manifest.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "kernels/base/check.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

using Json = nlohmann::ordered_json;  // keeps the order of fields, for people who read the file

constexpr char kFormat[] = "deeper-checkpoint";
constexpr int kVersion = 1;
constexpr char kSeal[] = "manifest_xxh3_128";

std::string Dump(const Json& json, int indent) {
  // `replace`: a path in the config that is not UTF-8 must not lose the checkpoint.
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

std::string HashOf(const std::string& text) {
  return Xxh3(text.data(), text.size()).Hex();
}

// The text of a manifest, with its checksum as the last field.
std::string Seal(Json document) {
  document[kSeal] = HashOf(Dump(document, 1));
  return Dump(document, 1) + "\n";
}

Json ToJson(const DataState& data) {
  return {{"dataset_uuid", data.dataset_uuid},
          {"seed", data.seed},
          {"global_batch", data.global_batch},
          {"order", data.order},
          {"epoch", data.epoch},
          {"batch", data.batch},
          {"samples_trained", data.samples_trained}};
}

Hash128 HashFrom(const std::string& hex) {
  if (hex.size() != 32) return {};
  return {std::stoull(hex.substr(0, 16), nullptr, 16), std::stoull(hex.substr(16), nullptr, 16)};
}

CheckpointManifest ManifestFrom(const Json& document) {
  const Json& data = document.at("data");
  CheckpointManifest manifest;
  manifest.step = document.at("step");
  manifest.data = {data.at("dataset_uuid"), data.at("seed"),  data.at("global_batch"),   data.at("order"),
                   data.at("epoch"),        data.at("batch"), data.at("samples_trained")};
  manifest.config = document.at("config");
  if (document.contains("top1")) manifest.top1 = document.at("top1").get<double>();
  for (const Json& shard : document.at("shards")) {
    manifest.shards.push_back({shard.at("bytes"), HashFrom(shard.at("xxh3_128"))});
  }
  for (const Json& tensor : document.at("tensors")) {
    manifest.tensors.push_back(
        {tensor.at("name"), tensor.at("shape"), tensor.at("role"), tensor.at("first"), tensor.at("count")});
  }
  return manifest;
}

// The checksum shows that the manifest is unchanged; this, that it was written correctly.
bool IsConsistent(const CheckpointManifest& manifest) {
  int64_t next = 0;
  for (const TensorEntry& tensor : manifest.tensors) {
    int64_t count = 1;
    for (const int64_t extent : tensor.shape) count *= extent;
    if (tensor.first != next || tensor.count != count || count <= 0) return false;
    next += count;
  }
  return next > 0 && !manifest.shards.empty() && manifest.config.is_object();
}

}  // namespace

std::string TensorEntry::ToString() const {
  return absl::StrCat(name, " [", absl::StrJoin(shape, ", "), "]");
}

std::vector<StateTensor> StateTensors(const ParamStore& params, WithOptimizer optimizer) {
  std::vector<StateTensor> tensors;
  int64_t next = 0;
  const auto append = [&](const std::vector<Param>& table, const std::string& role, float* arena) {
    for (const Param& param : table) {
      const int64_t count = param.spec.elements();
      tensors.push_back({{param.name, param.spec.shape, role, next, count}, &param, arena});
      next += count;
    }
  };
  append(params.trained(), kWeightRole, params.values());
  if (optimizer == WithOptimizer::kYes) {
    DEEPER_CHECK(params.grads() != nullptr, "these parameters are not for training");
    for (size_t i = 0; i < params.state_names().size(); ++i)
      append(params.trained(), params.state_names()[i], params.state(i));
  }
  append(params.statistics(), kStatisticRole, params.statistic_values());
  if (optimizer == WithOptimizer::kYes && params.averages() != nullptr) {
    append(params.trained(), kAverageRole, params.averages());
    append(params.statistics(), kStatisticAverageRole, params.statistic_averages());
  }
  return tensors;
}

std::vector<TensorEntry> EntriesOf(const std::vector<StateTensor>& tensors) {
  std::vector<TensorEntry> entries;
  for (const StateTensor& tensor : tensors) entries.push_back(tensor.entry);
  return entries;
}

std::vector<std::string> TensorDifferences(const std::vector<TensorEntry>& file,
                                           const std::vector<TensorEntry>& model) {
  std::map<std::string, std::string> unmatched;  // of the file: name -> name and shape
  for (const TensorEntry& entry : file) {
    if (!entry.is_optimizer_state()) unmatched[entry.name] = entry.ToString();
  }
  std::vector<std::string> differences;
  for (const TensorEntry& entry : model) {
    if (entry.is_optimizer_state()) continue;
    const auto same_name = unmatched.find(entry.name);
    if (same_name == unmatched.end()) {
      differences.push_back(absl::StrCat(entry.ToString(), " is missing in the file"));
      continue;
    }
    if (same_name->second != entry.ToString()) {
      differences.push_back(
          absl::StrCat(same_name->second, " in the file is ", entry.ToString(), " in the model"));
    }
    unmatched.erase(same_name);
  }
  for (const auto& [name, text] : unmatched)
    differences.push_back(absl::StrCat(text, " is not in the model"));
  constexpr size_t kEnough = 12;
  if (differences.size() > kEnough) {
    differences[kEnough] = absl::StrCat("and ", differences.size() - kEnough, " more");
    differences.resize(kEnough + 1);
  }
  return differences;
}

int64_t ShardsOf(int64_t elements, int ranks) {
  constexpr int64_t kFewRanks = 8, kLeastBytes = int64_t{16} << 20;
  const int64_t large = elements * static_cast<int64_t>(sizeof(float)) / kLeastBytes;
  return std::clamp<int64_t>(large, std::min<int64_t>(ranks, kFewRanks), ranks);
}

int WriterOf(int64_t shard, int64_t shard_count, int ranks) {
  return static_cast<int>(shard * ranks / shard_count);
}

StateRange ShardRange(int64_t elements, int64_t shard, int64_t shard_count) {
  return {elements * shard / shard_count, elements * (shard + 1) / shard_count};
}

std::string ShardName(int64_t shard, int64_t shard_count) {
  return absl::StrFormat("shard-%05d-of-%05d.h5", shard, shard_count);
}

std::string RenderCheckpointManifest(const CheckpointManifest& manifest) {
  Json document = {{"format", kFormat},
                   {"format_version", kVersion},
                   {"step", manifest.step},
                   {"world_size", manifest.shards.size()},
                   {"rng", "philox4x32-10, keyed by (seed, epoch, sample, op): no state of its own"},
                   {"data", ToJson(manifest.data)},
                   {"config", manifest.config},
                   {"config_xxh3_128", HashOf(Dump(manifest.config, -1))},
                   {"shards", Json::array()},
                   {"tensors", Json::array()}};
  if (manifest.top1.has_value()) document["top1"] = *manifest.top1;
  for (size_t i = 0; i < manifest.shards.size(); ++i) {
    document["shards"].push_back({{"file", ShardName(i, manifest.shards.size())},
                                  {"bytes", manifest.shards[i].bytes},
                                  {"xxh3_128", manifest.shards[i].hash.Hex()}});
  }
  for (const TensorEntry& tensor : manifest.tensors) {
    document["tensors"].push_back({{"name", tensor.name},
                                   {"role", tensor.role},
                                   {"shape", tensor.shape},
                                   {"first", tensor.first},
                                   {"count", tensor.count}});
  }
  return Seal(std::move(document));
}

absl::StatusOr<CheckpointManifest> ParseCheckpointManifest(const std::string& text, const std::string& path) {
  Json document = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object() || document.value("format", Json()) != kFormat) {
    return DataLoss(path, " is damaged, or is not the manifest of a checkpoint");
  }
  if (const Json version = document.value("format_version", Json()); version != kVersion) {
    return Unimplemented(path, " has checkpoint format version ", version.dump(),
                         "; this build reads version ", kVersion);
  }
  document.erase(kSeal);
  if (Seal(document) != text) {
    return DataLoss(path, " is damaged: it does not match its own checksum");
  }
  try {
    CheckpointManifest manifest = ManifestFrom(document);
    if (IsConsistent(manifest)) return manifest;
  } catch (const std::exception&) {  // of the JSON library: a field is missing or of another type
  }
  return DataLoss(path, " is not a manifest that deeper wrote: its fields do not fit together");
}

}  // namespace deeper
