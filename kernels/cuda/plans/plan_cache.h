// A persistent cache of tuned plans. For each environment (a GPU and the versions of its software) and each
// problem's description, it keeps the library's serialized choice. Ranks and runs may share one JSON file:
//
//   {"format": 1, "plans": {"NVIDIA H100 80GB HBM3, ...": {"convolution forward bf16: ...": "..."}}}
//
// The content is not trusted. An unreadable file counts as absent, and the library of an entry must still
// accept it.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"

namespace deeper {

class PlanCache {
 public:
  // Reads `file` if it exists. Empty: reads and writes no file, and plans last as long as the object.
  PlanCache(std::string file, std::string environment);

  std::optional<std::string> Find(const std::string& problem) const;
  // Replaces the entry and writes the file atomically, including the entries that others wrote meanwhile. An
  // error names the file; the entry stays in memory in any case.
  absl::Status Put(const std::string& problem, const std::string& plan);

 private:
  const std::string file_;
  const std::string environment_;
  std::map<std::string, std::string> plans_;  // of this environment, by problem
};

}  // namespace deeper
