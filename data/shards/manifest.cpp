#include "data/shards/manifest.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "data/io/atomic_file.h"
#include "data/io/checksum.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

using nlohmann::json;

constexpr char kFormat[] = "deeper-dataset";
constexpr int kVersion = 1;

json ToJson(const SplitManifest& split) {
  json shards = json::array(), rejects = json::array();
  for (const ShardEntry& s : split.shards) {
    shards.push_back({{"file", s.file}, {"bytes", s.bytes}, {"xxh3_128", s.xxh3}, {"samples", s.samples}});
  }
  for (const Reject& r : split.rejects) rejects.push_back({{"name", r.name}, {"reason", r.reason}});
  return {{"dataset_uuid", split.uuid}, {"encoding", NameOf(split.encoding)},
          {"channels", split.channels}, {"height", split.height},
          {"width", split.width},       {"samples", split.samples},
          {"mean", split.stats.mean},   {"std", split.stats.stddev},
          {"shards", shards},           {"rejects", rejects}};
}

// Throws json::exception on a missing or mistyped field.
SplitManifest SplitFromJson(const json& in) {
  const absl::StatusOr<Encoding> encoding = ParseEncoding(in.at("encoding").get<std::string>());
  if (!encoding.ok()) throw json::type_error::create(302, std::string(encoding.status().message()), &in);
  SplitManifest split{in.at("dataset_uuid"),
                      *encoding,
                      in.at("channels"),
                      in.at("height"),
                      in.at("width"),
                      in.at("samples"),
                      {in.at("mean"), in.at("std")},
                      {},
                      {}};
  for (const json& s : in.at("shards")) {
    split.shards.push_back({s.at("file"), s.at("bytes"), s.at("xxh3_128"), s.at("samples")});
  }
  for (const json& r : in.at("rejects")) split.rejects.push_back({r.at("name"), r.at("reason")});
  return split;
}

// File names may be other than UTF-8, but JSON must be UTF-8.
std::string Dump(const json& document, int indent) {
  return document.dump(indent, ' ', false, json::error_handler_t::replace);
}

// Checksum of the document without its "checksum" field, in compact form.
std::string Checksum(const json& document) {
  const std::string text = Dump(document, -1);
  return Xxh3(text.data(), text.size()).Hex();
}

std::string ManifestPath(const std::string& directory) {
  return directory + "/manifest.json";
}

// What is wrong with a split whose fields are complete; empty if nothing.
std::string Problem(const SplitManifest& split) {
  const auto channels = static_cast<size_t>(split.channels);
  if (channels != 1 && channels != 3) return "channels is not 1 or 3";
  if (split.stats.mean.size() != channels || split.stats.stddev.size() != channels)
    return "mean and std do not have one number per channel";
  for (size_t c = 0; c < channels; ++c) {
    if (!std::isfinite(split.stats.mean[c]) || !std::isfinite(split.stats.stddev[c]) ||
        split.stats.stddev[c] <= 0)
      return "mean and std are not valid statistics";
  }
  if (split.height < 0 || split.width < 0) return "height or width is negative";
  int64_t left = split.samples;
  for (const ShardEntry& shard : split.shards) {
    if (shard.samples <= 0 || shard.samples > left) return "its shards do not add up to its samples";
    if (absl::StrContains(shard.file, '/')) return "a shard is not in the manifest's directory";
    left -= shard.samples;
  }
  return left != 0 || split.samples <= 0 ? "its shards do not add up to its samples" : "";
}

Manifest FromJson(const json& document) {
  Manifest manifest;
  document.at("classes").get_to(manifest.classes);
  for (const auto& [name, split] : document.at("splits").items())
    manifest.splits[name] = SplitFromJson(split);
  return manifest;
}

}  // namespace

ShardHeader HeaderOf(const SplitManifest& split, const std::string& name, size_t index) {
  int64_t first = 0;
  for (size_t i = 0; i < index; ++i) first += split.shards[i].samples;
  return {split.encoding,
          split.channels,
          split.uuid,
          name,
          static_cast<int64_t>(index),
          std::ssize(split.shards),
          first,
          split.shards[index].samples,
          split.samples};
}

const PixelStats& Manifest::StatsFor(const std::string& split) const {
  const auto train = splits.find("train");
  return (train != splits.end() ? train->second : splits.at(split)).stats;
}

absl::Status CheckClassNames(const std::vector<std::string>& classes) {
  if (classes.size() > kMaxClasses) {
    return InvalidArgument(classes.size(), " classes; labels go up to ", kMaxClasses - 1);
  }
  for (const std::string& name : classes) {
    try {
      json(name).dump();
    } catch (const json::exception&) {
      return InvalidArgument("class name \"", absl::CHexEscape(name), "\" is not UTF-8; rename it");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Manifest> ParseManifest(std::span<const uint8_t> text, const std::string& path) {
  try {
    json document = json::parse(text.begin(), text.end());
    if (document.at("format") != kFormat || document.at("format_version") != kVersion) {
      return FailedPrecondition(path, " is not a ", kFormat, " manifest of version ", kVersion);
    }
    const std::string checksum = document.at("checksum");
    document.erase("checksum");
    if (checksum == Checksum(document)) {
      Manifest manifest = FromJson(document);
      for (const auto& [name, split] : manifest.splits) {
        const std::string problem = Problem(split);
        if (!problem.empty()) return DataLoss(path, ", split ", name, ": ", problem);
      }
      return manifest;
    }
  } catch (const json::exception& error) {
    return DataLoss(path, " is damaged: ", error.what(), "; restore it or pack again");
  }
  return DataLoss(path, " does not match its own checksum; restore it, or delete it and pack again");
}

absl::StatusOr<Manifest> ReadManifest(const std::string& directory) {
  const std::string path = ManifestPath(directory);
  absl::StatusOr<std::vector<uint8_t>> text = ReadFile(path);
  if (absl::IsNotFound(text.status())) {
    return NotFound("there is no ", path,
                    ": not a packed dataset, or packing has not ended; run `deeper pack`");
  }
  return text.ok() ? ParseManifest(*text, path) : text.status();
}

std::string ManifestText(const Manifest& manifest) {
  json splits = json::object();
  for (const auto& [name, split] : manifest.splits) splits[name] = ToJson(split);
  json document = {
      {"format", kFormat}, {"format_version", kVersion}, {"classes", manifest.classes}, {"splits", splits}};
  document["checksum"] = Checksum(document);
  return Dump(document, 1) + "\n";
}

absl::Status WriteManifest(const std::string& directory, const Manifest& manifest) {
  return WriteFileAtomically(ManifestPath(directory), ManifestText(manifest));
}

}  // namespace deeper
