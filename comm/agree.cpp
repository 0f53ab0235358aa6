#include "comm/agree.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/input_output.h"

namespace deeper {
namespace {

// As after an earlier Agree. All ranks then have this failure, so the root need not be the rank that failed.
bool NamesARank(absl::string_view message) {
  if (!absl::ConsumePrefix(&message, "rank ")) return false;
  const size_t digits = std::min(message.find_first_not_of("0123456789"), message.size());
  return digits > 0 && absl::StartsWith(message.substr(digits), ": ");
}

}  // namespace

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
  if (!NamesARank(message)) message.insert(0, absl::StrCat("rank ", root, ": "));
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
