// TCP connections for the watchdog's few small messages (watchdog.h): a star with rank 0 at the centre.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "comm/phase.h"

namespace deeper {

struct PeerMessage {
  enum class Kind : int32_t { kHello, kBeat, kFarewell, kVerdict };
  Kind kind = Kind::kBeat;
  int32_t rank = 0;     // the sender
  uint64_t token = 0;   // of the job; other programs do not know it
  double standing = 0;  // kBeat: RankStatus::standing
  PhaseMark mark = {};  // kBeat
};

// One end of a connection. Not thread-safe.
class PeerLink {
 public:
  explicit PeerLink(int fd) : fd_(fd) {}
  ~PeerLink();
  PeerLink(const PeerLink&) = delete;
  PeerLink& operator=(const PeerLink&) = delete;

  int fd() const { return fd_; }
  // Never blocks. Drops the message if an earlier one is not fully sent, because the peer does not read.
  void Send(const PeerMessage& message);
  // Calls `handle` with each message that has arrived. Never blocks. False: the connection has ended.
  bool Receive(const std::function<void(const PeerMessage&)>& handle);
  // errno, if the network ended the connection; 0: the peer closed it or its process ended.
  int error() const { return error_; }

 private:
  int fd_;
  int error_ = 0;
  std::vector<std::byte> in_, out_;  // incomplete messages
};

// Collective. Rank 0 gets a link to every other rank, [rank], with nullptr for itself; the others get one to
// rank 0, [0]. Rank 0 listens on all its IPv4 addresses and broadcasts them over `comm`. It closes the port
// before this returns. Unavailable, on all ranks: a rank cannot reach rank 0.
absl::StatusOr<std::vector<std::unique_ptr<PeerLink>>> ConnectPeers(Communicator& comm);

}  // namespace deeper
