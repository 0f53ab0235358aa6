// Copies files to where they are faster to read, once a machine, while the originals are in use.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/io/file.h"

namespace deeper {

struct StagedFile {
  std::string path;  // of the original
  uint64_t bytes = 0;
  std::string xxh3;  // XXH3-128 that it must have
};

struct StageOptions {
  std::string dir;                                         // on a local disk; empty: nothing is staged
  std::function<void(const std::string& message)> report;  // called on a thread of the stager's
};

// Every process of a machine has one; the one that holds the lock on the directory makes the copies, and if
// it dies another goes on. The others use them as they appear. A copy has its name, which has its checksum in
// it, only once it was verified and is on disk: so it serves later runs, and never another data set.
class Stager {
 public:
  // `ready` gets the number of a file and its open copy, on the stager's thread. ResourceExhausted: `dir` has
  // not enough room for what is missing.
  static absl::StatusOr<std::unique_ptr<Stager>> Start(const StageOptions& options,
                                                       std::vector<StagedFile> files,
                                                       std::function<void(size_t, File)> ready);
  virtual ~Stager() = default;  // stops in the middle of a copy
};

}  // namespace deeper
