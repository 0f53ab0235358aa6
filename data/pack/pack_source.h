// Where `pack` gets its samples from: one implementation a source format.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "data/io/file.h"
#include "data/load/dataset.h"
#include "data/pack/pack.h"

namespace deeper {

struct SourceSample {
  std::vector<uint8_t> file;  // an image file's bytes, undecoded; empty if the source has plain pixels:
  Image image;
};

// Fixed once open: the same input gives the same samples in the same order. Any number of threads may load.
class PackSource {
 public:
  virtual ~PackSource() = default;
  virtual int64_t size() const = 0;
  virtual int channels() const = 0;
  // What the sample is called in messages and in the shard.
  virtual std::string Name(int64_t i) const = 0;
  virtual int Label(int64_t i) const = 0;
  // An error is a reason to leave the sample out.
  virtual absl::StatusOr<SourceSample> Load(int64_t i) const = 0;

  const std::vector<std::string>& classes() const { return classes_; }
  // Things that look like mistakes but do not prevent packing.
  const std::vector<std::string>& warnings() const { return warnings_; }
  void Warn(std::string warning) { warnings_.push_back(std::move(warning)); }

 protected:
  std::vector<std::string> classes_, warnings_;
};

// `known_classes`: those of the splits already packed next to this one, or empty. They, else
// input/classes.txt (one name a line, in label order), else what the input itself says, give the labels their
// meaning; two of them that disagree are an error.
absl::StatusOr<std::unique_ptr<PackSource>> OpenIdxSource(const std::string& input, const std::string& split,
                                                          const std::vector<std::string>& known_classes);
absl::StatusOr<std::unique_ptr<PackSource>> OpenFolderSource(const std::string& input,
                                                             const std::vector<std::string>& known_classes);

absl::StatusOr<std::unique_ptr<PackSource>> OpenImagenetSource(const PackOptions& options,
                                                               const std::vector<std::string>& known_classes,
                                                               const PackProgress& progress);

// An image file that is `bytes` of `file` from `offset` on. DataLoss: empty, or beyond the end. OutOfRange:
// too large to be one.
absl::StatusOr<SourceSample> LoadImageFile(const File& file, uint64_t offset, uint64_t bytes);

// The classes named by `known_classes` or input/classes.txt; empty if there are neither.
absl::StatusOr<std::vector<std::string>> ListedClasses(const std::string& input,
                                                       const std::vector<std::string>& known_classes);

}  // namespace deeper
