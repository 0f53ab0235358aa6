// Copies files to a faster disk, once per machine, while the originals are in use.
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
  std::function<void(const std::string& message)> report;  // called on a thread of the stager
};

// Every process of a machine has a stager. The one that holds the lock on the directory makes the copies; if
// it dies, another process continues. The others use the copies as they appear. A copy gets its name, which
// includes its checksum, only after it is verified and on disk. So later runs can use it, and it never serves
// another data set.
class Stager {
 public:
  // Calls `ready` on the stager's thread with the number of a file and its open copy. ResourceExhausted:
  // `dir` has too little space for the missing copies.
  static absl::StatusOr<std::unique_ptr<Stager>> Start(const StageOptions& options,
                                                       std::vector<StagedFile> files,
                                                       std::function<void(size_t, File)> ready);
  virtual ~Stager() = default;  // stops in the middle of a copy
};

}  // namespace deeper
