// What tuning found, kept from run to run: for each environment (a GPU and the versions of its software) and
// each problem, in words, what the library made of its choice. One JSON file, which ranks and runs may share:
//
//   {"format": 1, "plans": {"NVIDIA H100 80GB HBM3, ...": {"convolution forward bf16: ...": "..."}}}
//
// Nothing in it is trusted: what cannot be read is as good as absent, and what is found must still be loaded
// by the library that it came from.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"

namespace deeper {

class PlanCache {
 public:
  // Reads `file` if it exists. Empty: nothing is read or written, and plans last as long as the object.
  PlanCache(std::string file, std::string environment);

  std::optional<std::string> Find(const std::string& problem) const;
  // Replaces the entry, and writes the file: atomically, and with all that others wrote into it meanwhile. An
  // error names the file; the entry is kept in memory nevertheless.
  absl::Status Put(const std::string& problem, const std::string& plan);

 private:
  const std::string file_;
  const std::string environment_;
  std::map<std::string, std::string> plans_;  // of this environment, by problem
};

}  // namespace deeper
