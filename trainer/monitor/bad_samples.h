// What all ranks together have met of samples that cannot be read (LoaderOptions::allow_bad).
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "data/load/loader.h"

namespace deeper {

class BadSamples {
 public:
  BadSamples(Communicator& comm, int64_t allowed) : comm_(comm), allowed_(allowed) {}

  // Collective. What was wrong with each that is new since the last call, the same on all ranks. DataLoss
  // once they are more than are allowed, on all ranks.
  absl::StatusOr<std::vector<std::string>> Gather(const Loader& loader);
  int64_t count() const { return std::ssize(known_); }  // so far, over all ranks

 private:
  Communicator& comm_;
  const int64_t allowed_;
  std::set<int64_t> known_;  // of all ranks
};

}  // namespace deeper
