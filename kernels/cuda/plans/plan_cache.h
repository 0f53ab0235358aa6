// A persistent cache of tuned plans. For each environment (a GPU and the versions of its software) and each
// problem's description, it keeps the library's serialized choice. Ranks and runs may share one JSON file:
//
//   {"format": 1, "plans": {"NVIDIA H100 80GB HBM3, ...": {"convolution forward bf16: ...": "..."}}}
//
// The content is not trusted. An unreadable file counts as absent, and the library of an entry must still
// accept it.
//
// An algorithm that may hang or fault the GPU is on record, in a file next to the cache, while it runs for
// the first time. A process that ends meanwhile leaves the record, and later processes exclude the algorithm.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace deeper {

class PlanCache {
 public:
  // Reads `file` if it exists. Empty: reads and writes no file, and plans last as long as the object.
  PlanCache(std::string file, std::string environment);

  std::optional<std::string> Find(const std::string& problem) const;
  // Replaces the entry and writes the file atomically, including the entries that others wrote meanwhile. An
  // error names the file; the entry stays in memory in any case.
  absl::Status Put(const std::string& problem, const std::string& plan);

  // Runs `work`, a run of an algorithm, and has a record of it meanwhile, unless there is no cache file. If
  // the process ends during `work`, even by a time limit of the job, the algorithm counts as failed, so
  // `work` should do nothing else. Without a record, it does not run, and the error names the file.
  absl::Status OnTrial(const std::string& algorithm, const std::string& problem,
                       const std::function<void()>& work) const;
  // The records in this environment of processes that ended. Another host's counts once it is a minute old.
  struct FailedTrial {
    std::string algorithm, problem, record;
  };
  std::vector<FailedTrial> FailedTrials() const;

 private:
  const std::string file_;
  const std::string environment_;
  std::map<std::string, std::string> plans_;  // of this environment, by problem
};

}  // namespace deeper
