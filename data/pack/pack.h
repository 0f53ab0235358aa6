// Packs a labelled image collection into shards and a manifest (docs/reference/formats.md).
//
// The result is a pure function of the input and the options, for any number of threads and after any
// interruption. A second run keeps the finished shards that pass their checks and writes the others.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/shards/manifest.h"
#include "data/shards/shard_format.h"
#include "data/sources/holdout.h"
#include "data/sources/source.h"

namespace deeper {

struct PackOptions {
  std::string format;         // of the input: a name of SourceFormats()
  std::string input, output;  // directories; `output` is created. Some formats read a file or a pattern
  std::string root;           // of SourceOptions
  std::string split = "train";
  std::string input_split;  // empty: `split`
  // > 0: packs only one of the two parts into which TakePart divides the input.
  int64_t holdout = 0;
  uint64_t holdout_seed = 1;
  SourcePart part = SourcePart::kRest;
  Encoding encoding = Encoding::kRaw;
  int resize = 0;                         // > 0: resize images so that the short side has this length
  int quality = 95;                       // of JPEGs made here, 1..100
  uint64_t shuffle = 0;                   // seed of the order of the samples; 0: the input's order
  int64_t shard_size = int64_t{1} << 30;  // largest bytes of samples per shard, unless one sample is larger
  int jobs = 0;                           // threads; 0: one per core
  int64_t allow_bad = 0;                  // how many bad images may be left out
  bool strict = false;                    // warnings are errors
};

struct PackSummary {
  SplitManifest split;  // uuid, samples, shards with their bytes, statistics, rejects
  int64_t classes = 0;
  int64_t kept_shards = 0;            // complete and valid from an earlier run
  int64_t reencoded = 0;              // samples stored as JPEG, but not with the original file's bytes
  std::vector<std::string> warnings;  // a class without images, files outside the class folders
  std::vector<std::string> notes;     // hidden files left out, images with irregular headers
};

// InvalidArgument: options or input that cannot be packed. DataLoss, naming the images: more than `allow_bad`
// are bad. FailedPrecondition: `output` holds another dataset under this split, or is in use.
// ResourceExhausted: disk full. Only complete files get their final names.
absl::StatusOr<PackSummary> Pack(const PackOptions& options, const PackProgress& progress = nullptr);

}  // namespace deeper
