// The bandwidth of several TCP connections at once between hosts. One connection fills no interface beyond
// about 40 Gbit/s, so that a slow network shows only where several are in use.
#pragma once

#include <netinet/in.h>

#include <cstdint>

#include "comm/communicator.h"
#include "trainer/scaling/health.h"

namespace deeper {

// Where a host receives. Other programs do not know the token, so what they send does not count.
struct StreamsAddress {
  in_addr address = {};
  uint16_t port = 0;  // 0: it cannot listen
  uint64_t token = 0;
};

// Receives from SendStreams of another process.
class StreamsReceiver {
 public:
  // Listens on the IPv4 address of this interface, or of the first one that is up and is not loopback if the
  // name is empty.
  explicit StreamsReceiver(const char* interface);
  ~StreamsReceiver();
  StreamsReceiver(const StreamsReceiver&) = delete;
  StreamsReceiver& operator=(const StreamsReceiver&) = delete;

  const StreamsAddress& address() const { return address_; }
  // Returns bytes/s of the first kStreams connections with the token, over 0.4 s after TCP has increased its
  // window; 0 if they do not arrive within 2 s.
  double Measure();

 private:
  int fd_ = -1;
  StreamsAddress address_;
};

// Sends over kStreams connections until the receiver closes them, at most 4 s.
void SendStreams(const StreamsAddress& to);

// Collective. Sets streams_bytes_per_second on the first rank of each host: what arrives there from the host
// of the rank before it in the ring. No host sends and receives at the same time. 0 on other ranks, with one
// host, and where a host cannot be reached.
void MeasureStreams(Communicator& comm, RankHealth& mine);

}  // namespace deeper
