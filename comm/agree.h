// Ranks agree on success or on one failure, so that no rank waits in a collective that its peers never enter.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "kernels/base/status.h"

namespace deeper {

// Collective. OK if `mine` is OK on every rank. Otherwise, every rank returns the failure of the lowest
// failing rank, with its exit code and, if there are several ranks, its number in the message.
absl::Status Agree(Communicator& comm, const absl::Status& mine);
// Returns `mine` if it is OK on every rank; otherwise as above.
template <class T>
absl::StatusOr<T> Agree(Communicator& comm, absl::StatusOr<T> mine) {
  RETURN_IF_ERROR(Agree(comm, mine.status()));
  return mine;
}

// Collective. Replaces `bytes` by that of rank `root`.
void Broadcast(Communicator& comm, int root, std::string* bytes);

}  // namespace deeper
