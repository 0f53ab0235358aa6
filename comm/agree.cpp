#include "comm/agree.h"

#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/input_output.h"

namespace deeper {

absl::Status Agree(Communicator& comm, const absl::Status& mine) {
  if (comm.size() == 1) return mine;
  int64_t first_failed = mine.ok() ? comm.size() : comm.rank();
  comm.AllReduce(&first_failed, 1, CommType::kI64, ReduceOp::kMin, {}).Wait();
  if (first_failed == comm.size()) return absl::OkStatus();

  const int root = static_cast<int>(first_failed);
  // Adds no exit code to a failure without one: the caller may know it.
  const bool marked = mine.GetPayload(kExitCodePayload).has_value();
  struct {
    int64_t code, exit_code, input_output;
  } header{static_cast<int64_t>(mine.code()),
           static_cast<int64_t>(marked ? ExitCodeOf(mine) : ExitCode::kDone),
           static_cast<int64_t>(IsInputOutput(mine))};
  comm.Broadcast(&header, sizeof(header), root, {}).Wait();
  std::string message(mine.message());
  Broadcast(comm, root, &message);
  const std::string prefix = absl::StrCat("rank ", root, ": ");
  if (!absl::StartsWith(message, prefix)) message.insert(0, prefix);  // an earlier Agree has added it
  absl::Status agreed(static_cast<absl::StatusCode>(header.code), message);
  if (header.input_output != 0) agreed = AsInputOutput(std::move(agreed));
  const auto exit_code = static_cast<ExitCode>(header.exit_code);
  return exit_code == ExitCode::kDone ? agreed : WithExitCode(std::move(agreed), exit_code);
}

void Broadcast(Communicator& comm, int root, std::string* bytes) {
  uint64_t length = bytes->size();
  comm.Broadcast(&length, sizeof length, root, {}).Wait();
  bytes->resize(length);
  comm.Broadcast(bytes->data(), length, root, {}).Wait();
}

}  // namespace deeper
