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

// One write appends a whole record: after a crash, all before it can be read. Times are seconds since 1970.
class EventFile {
 public:
  // A new file in `directory`, made if need be. TensorBoard shows all files of a directory as one run; what
  // earlier ones say of `first_step` and later steps, it forgets: a resumed run does those again.
  static absl::StatusOr<EventFile> Create(const std::string& directory, int64_t first_step, double time);

  absl::Status Append(int64_t step, double time, const std::vector<Scalar>& scalars);

 private:
  explicit EventFile(File file) : file_(std::move(file)) {}
  absl::Status AppendRecord(const std::string& event);

  File file_;
};

}  // namespace deeper
