// Event files, as TensorBoard reads them: TFRecords of TensorFlow's protobuf messages Event and Summary.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/io/file.h"

namespace deeper {

using Scalar = std::pair<std::string, double>;  // tag, value; stored as float

// One write appends a whole record: a crash leaves all earlier ones readable. Times: seconds since 1970.
class EventFile {
 public:
  // Creates a file in `directory`, and the directory if it is missing. TensorBoard shows all files of a
  // directory as one run. It drops earlier files' data from `first_step` on, which a resumed run repeats.
  static absl::StatusOr<EventFile> Create(const std::string& directory, int64_t first_step, double time);

  absl::Status Append(int64_t step, double time, const std::vector<Scalar>& scalars);

 private:
  explicit EventFile(File file) : file_(std::move(file)) {}
  absl::Status AppendRecord(const std::string& event);

  File file_;
};

}  // namespace deeper
