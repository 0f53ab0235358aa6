// eval --logits_out: an HDF5 file of /logits [samples, classes] float32 and /labels [samples] u32, in the
// order of the samples. All ranks write their rows straight to their places; the file has its name only once
// it is whole.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "data/io/file.h"
#include "data/load/dataset.h"
#include "data/load/loader.h"

namespace deeper {

class LogitsFile {
 public:
  // Collective, as is Commit: the same failure on every rank.
  static absl::StatusOr<LogitsFile> Create(const std::string& path, const Dataset& dataset, int64_t classes,
                                           Communicator& comm);

  // The first error sticks, and Commit returns it.
  void Write(const Batch& batch, const float* logits);
  absl::Status Commit(Communicator& comm);

 private:
  std::string path_;
  File file_;
  uint64_t offset_ = 0;  // of /logits in the file
  int64_t classes_ = 0;
  absl::Status status_;
};

}  // namespace deeper
