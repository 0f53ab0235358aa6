// TCP connections for the watchdog's small messages (watchdog.h). They form a tree with rank 0 at its root,
// so that no rank has many of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "comm/watchdog/lateness.h"

namespace deeper {

struct PeerMessage {
  enum class Kind : int32_t { kHello, kBeat, kFarewell, kVerdict };
  Kind kind = Kind::kBeat;
  int32_t rank = 0;        // the sender; kBeat: the rank that it is about, the sender or one below it
  uint64_t token = 0;      // of the job; other programs do not know it
  RankStatus status = {};  // kBeat
};

// One end of a connection. Not thread-safe.
class PeerLink {
 public:
  explicit PeerLink(int fd) : fd_(fd) {}
  ~PeerLink();
  PeerLink(const PeerLink&) = delete;
  PeerLink& operator=(const PeerLink&) = delete;

  int fd() const { return fd_; }
  // Never blocks. Drops the messages if too many earlier ones are not sent yet, because the peer does not
  // read.
  void Send(std::span<const PeerMessage> messages);
  void Send(const PeerMessage& message) { Send(std::span(&message, 1)); }
  // No messages follow this one, which is never dropped. The peer's Receive returns false after it. Never
  // blocks: what cannot be sent yet, Receive sends.
  void SendLast(const PeerMessage& message);
  // Sends messages that could not be sent before. Calls `handle` with each message that has arrived. Never
  // blocks. False: the connection has ended.
  bool Receive(const std::function<void(const PeerMessage&)>& handle);
  // errno, if the network ended the connection; 0: the peer closed it or its process ended.
  int error() const { return error_; }

 private:
  void Queue(std::span<const PeerMessage> messages);
  void Flush();

  int fd_;
  int error_ = 0;
  bool ended_ = false;          // SendLast was called
  std::vector<std::byte> in_;   // the beginning of a message
  std::vector<std::byte> out_;  // not sent yet
};

// The children of a rank are kFanOut consecutive ranks, or fewer.
constexpr int kFanOut = 16;
inline int ParentOf(int rank) {
  return (rank - 1) / kFanOut;
}
// Whether messages about `rank` pass through `above`, another rank.
inline bool IsBelow(int rank, int above) {
  while (rank > above) rank = ParentOf(rank);
  return rank == above;
}

struct Peer {
  int rank = 0;
  std::unique_ptr<PeerLink> link;  // nullptr once it has ended
};

// Collective. The peers of this rank: its parent, unless it is rank 0, and then its children. Each rank with
// children listens on all its IPv4 addresses, which the ranks exchange over `comm`. It closes the port before
// this returns. Unavailable, on all ranks: a rank cannot reach its parent.
absl::StatusOr<std::vector<Peer>> ConnectPeers(Communicator& comm);

}  // namespace deeper
