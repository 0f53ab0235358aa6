#include "data/manifest.h"

#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "data/atomic_file.h"
#include "data/checksum.h"

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
  SplitManifest split;
  in.at("dataset_uuid").get_to(split.uuid);
  split.encoding = ParseEncoding(in.at("encoding").get<std::string>()).value_or(Encoding::kRaw);
  in.at("channels").get_to(split.channels);
  in.at("height").get_to(split.height);
  in.at("width").get_to(split.width);
  in.at("samples").get_to(split.samples);
  in.at("mean").get_to(split.stats.mean);
  in.at("std").get_to(split.stats.stddev);
  for (const json& s : in.at("shards")) {
    split.shards.push_back({s.at("file"), s.at("bytes"), s.at("xxh3_128"), s.at("samples")});
  }
  for (const json& r : in.at("rejects")) split.rejects.push_back({r.at("name"), r.at("reason")});
  return split;
}

// File names need not be UTF-8; JSON must.
std::string Dump(const json& document, int indent) {
  return document.dump(indent, ' ', false, json::error_handler_t::replace);
}

// Of the document without its own "checksum", in compact form.
std::string Checksum(const json& document) {
  const std::string text = Dump(document, -1);
  return Xxh3(text.data(), text.size()).Hex();
}

std::string ManifestPath(const std::string& directory) {
  return directory + "/manifest.json";
}

Manifest FromJson(const json& document) {
  Manifest manifest;
  document.at("classes").get_to(manifest.classes);
  for (const auto& [name, split] : document.at("splits").items())
    manifest.splits[name] = SplitFromJson(split);
  return manifest;
}

}  // namespace

const PixelStats& Manifest::StatsFor(const std::string& split) const {
  const auto train = splits.find("train");
  return (train != splits.end() ? train->second : splits.at(split)).stats;
}

absl::Status CheckClassNames(const std::vector<std::string>& classes) {
  if (classes.size() > kMaxClasses) {
    return absl::InvalidArgumentError(
        absl::StrCat(classes.size(), " classes; labels go up to ", kMaxClasses - 1));
  }
  for (const std::string& name : classes) {
    try {
      json(name).dump();
    } catch (const json::exception&) {
      return absl::InvalidArgumentError(
          absl::StrCat("class name \"", absl::CHexEscape(name), "\" is not UTF-8; rename it"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Manifest> ReadManifest(const std::string& directory) {
  const std::string path = ManifestPath(directory);
  absl::StatusOr<std::vector<uint8_t>> text = ReadFile(path);
  if (absl::IsNotFound(text.status())) {
    return absl::NotFoundError(
        absl::StrCat("no ", path, ": not a packed dataset, or packing has not ended; run `deeper pack`"));
  }
  if (!text.ok()) return text.status();
  return ParseManifest({reinterpret_cast<const char*>(text->data()), text->size()}, path);
}

absl::StatusOr<Manifest> ParseManifest(std::string_view text, const std::string& path) {
  try {
    json document = json::parse(text);
    if (document.at("format") != kFormat || document.at("format_version") != kVersion) {
      return absl::FailedPreconditionError(
          absl::StrCat(path, " is not a ", kFormat, " manifest of version ", kVersion));
    }
    const std::string checksum = document.at("checksum");
    document.erase("checksum");
    if (checksum == Checksum(document)) return FromJson(document);
  } catch (const json::exception& error) {
    return absl::DataLossError(
        absl::StrCat(path, " is damaged: ", error.what(), "; restore it or pack again"));
  }
  return absl::DataLossError(
      absl::StrCat(path, " does not match its own checksum; restore it, or delete it and pack again"));
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
