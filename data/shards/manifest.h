// manifest.json of a packed dataset: what each split consists of. Written last, so its presence says that
// packing ended well.
//
// One directory may hold several splits; they share the class names, and packing one leaves the others'
// entries alone.
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

// Of shard `index`, which has its entry.
ShardHeader HeaderOf(const SplitManifest& split, const std::string& name, size_t index);

struct Manifest {
  std::vector<std::string> classes;
  std::map<std::string, SplitManifest> splits;

  // What the model's input is normalised with: the training split's statistics, for every split, where there
  // is one.
  const PixelStats& StatsFor(const std::string& split) const;
};

// Names a manifest and a shard can hold: UTF-8, not too many for a label.
absl::Status CheckClassNames(const std::vector<std::string>& classes);

// Of the text of a manifest.json; `path` is for messages. DataLoss: damaged, or edited by hand.
absl::StatusOr<Manifest> ParseManifest(std::span<const uint8_t> text, const std::string& path);
// NotFound: no manifest, so packing has not ended. DataLoss as ParseManifest.
absl::StatusOr<Manifest> ReadManifest(const std::string& directory);
// What ParseManifest takes.
std::string ManifestText(const Manifest& manifest);
absl::Status WriteManifest(const std::string& directory, const Manifest& manifest);

}  // namespace deeper
