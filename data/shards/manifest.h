// manifest.json of a packed dataset: the content of each split. It is written last, so its presence means
// that packing is complete.
//
// One directory may hold several splits. They share the class names; packing one split leaves the entries of
// the others unchanged.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/load/dataset.h"
#include "data/shards/shard_format.h"

namespace deeper {

struct ShardEntry {
  std::string file;  // name in the manifest's directory
  uint64_t bytes = 0;
  std::string xxh3;  // XXH3-128 of the whole file
  int64_t samples = 0;
};

// An image left out, and why.
struct Reject {
  std::string name, reason;
};

struct SplitManifest {
  std::string uuid;
  Encoding encoding = Encoding::kRaw;
  int channels = 3;
  int height = 0, width = 0;  // 0 where the samples differ
  int64_t samples = 0;
  PixelStats stats;  // of this split's pixels
  std::vector<ShardEntry> shards;
  std::vector<Reject> rejects;
};

// The header of shard `index`, which must have an entry.
ShardHeader HeaderOf(const SplitManifest& split, const std::string& name, size_t index);

struct Manifest {
  std::vector<std::string> classes;
  std::map<std::string, SplitManifest> splits;

  // The statistics to normalise the model's input with: for every split those of the training split, if there
  // is one.
  const PixelStats& StatsFor(const std::string& split) const;
};

// Checks that a manifest and a shard can hold the names: UTF-8, not more than there are labels.
absl::Status CheckClassNames(const std::vector<std::string>& classes);

// Parses the text of a manifest.json; `path` is for messages. DataLoss: damaged, or edited by hand.
absl::StatusOr<Manifest> ParseManifest(std::span<const uint8_t> text, const std::string& path);
// NotFound: no manifest, so packing is incomplete. DataLoss as ParseManifest.
absl::StatusOr<Manifest> ReadManifest(const std::string& directory);
// The text for ParseManifest.
std::string ManifestText(const Manifest& manifest);
absl::Status WriteManifest(const std::string& directory, const Manifest& manifest);

}  // namespace deeper
