#include "trainer/agree.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "trainer/exit_code.h"

namespace deeper {

absl::Status Agree(Communicator& comm, const absl::Status& mine) {
  if (comm.size() == 1) return mine;
  int64_t first_failed = mine.ok() ? comm.size() : comm.rank();
  comm.AllReduce(&first_failed, 1, CommType::kI64, ReduceOp::kMin, {}).Wait();
  if (first_failed == comm.size()) return absl::OkStatus();

  const int root = static_cast<int>(first_failed);
  // A failure without an exit code gets none here: the caller may know it.
  const bool marked = mine.GetPayload(kExitCodePayload).has_value();
  struct {
    int64_t code, exit_code, length;
  } header{static_cast<int64_t>(mine.code()),
           static_cast<int64_t>(marked ? ExitCodeOf(mine) : ExitCode::kDone),
           static_cast<int64_t>(mine.message().size())};
  comm.Broadcast(&header, sizeof(header), root, {}).Wait();
  std::string message(mine.message());
  message.resize(static_cast<size_t>(header.length));
  comm.Broadcast(message.data(), message.size(), root, {}).Wait();
  absl::Status agreed(static_cast<absl::StatusCode>(header.code), absl::StrCat("rank ", root, ": ", message));
  const auto exit_code = static_cast<ExitCode>(header.exit_code);
  return exit_code == ExitCode::kDone ? agreed : WithExitCode(std::move(agreed), exit_code);
}

}  // namespace deeper
