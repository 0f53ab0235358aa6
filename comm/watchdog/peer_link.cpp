#include "comm/watchdog/peer_link.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <random>
#include <string>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/str_join.h"
#include "comm/network_interfaces.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kMaxAddresses = 32;
constexpr size_t kMostUnsent = 64 << 10;                // bytes, after which a link drops messages
constexpr auto kConnectTime = std::chrono::seconds(2);  // per address
constexpr auto kHelloTime = std::chrono::seconds(5);    // for a new connection to send its hello
constexpr auto kAnswerTime = std::chrono::seconds(30);  // for the parent, which connects to its own one first
constexpr auto kGatherTime = std::chrono::seconds(60);  // until all children have connected

static_assert(std::is_trivially_copyable_v<PeerMessage>);

// The addresses of a rank. They include loopback: a process that answers there without the token is another
// one.
struct Offer {
  uint64_t token = 0;
  uint16_t port = 0;  // 0: it has no children, or cannot listen
  int32_t count = 0;
  in_addr addresses[kMaxAddresses] = {};
};

void FindAddresses(Offer& offer) {
  for (const NetworkInterface& interface : NetworkInterfaces())
    if (interface.ipv4 && offer.count < kMaxAddresses) offer.addresses[offer.count++] = *interface.ipv4;
}

sockaddr_in AddressOf(in_addr address, uint16_t port) {
  return {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = address, .sin_zero = {}};
}

std::unique_ptr<PeerLink> NewSocket() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return nullptr;
  return std::make_unique<PeerLink>(fd);
}

// Listens on any address, at a port that the system chooses; nullptr and port 0 on failure.
std::unique_ptr<PeerLink> Listen(uint16_t& port) {
  port = 0;
  std::unique_ptr<PeerLink> listener = NewSocket();
  sockaddr_in address = AddressOf({htonl(INADDR_ANY)}, 0);
  socklen_t size = sizeof address;
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  if (listener == nullptr || bind(listener->fd(), any, size) != 0 || listen(listener->fd(), SOMAXCONN) != 0 ||
      getsockname(listener->fd(), any, &size) != 0)
    return nullptr;
  port = ntohs(address.sin_port);
  return listener;
}

bool WaitUntil(int fd, short events, Clock::time_point deadline) {
  pollfd waited{fd, events, 0};
  int ready = 0;
  do {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    ready = poll(&waited, 1, static_cast<int>(std::max<int64_t>(0, left)));
  } while (ready < 0 && errno == EINTR);
  return ready > 0;
}

// The number of the rank that sends a hello with the right token in time; otherwise -1.
int HelloFrom(PeerLink& link, uint64_t token, Clock::duration patience) {
  int rank = -1;
  const auto deadline = Clock::now() + patience;
  while (rank < 0 && WaitUntil(link.fd(), POLLIN, deadline)) {
    const bool open = link.Receive([&](const PeerMessage& message) {
      if (message.kind == PeerMessage::Kind::kHello && message.token == token) rank = message.rank;
    });
    if (!open) break;
  }
  return rank;
}

PeerMessage Hello(const Communicator& comm, uint64_t token) {
  return {.kind = PeerMessage::Kind::kHello, .rank = comm.rank(), .token = token};
}

// Adds a peer for each of the `count` children that connects in time.
void AcceptChildren(const PeerLink& listener, const Communicator& comm, uint64_t token, int count,
                    std::vector<Peer>& peers) {
  const auto deadline = Clock::now() + kGatherTime;
  while (count > 0 && WaitUntil(listener.fd(), POLLIN, deadline)) {
    const int fd = accept4(listener.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    auto link = std::make_unique<PeerLink>(fd);
    const int rank = HelloFrom(*link, token, kHelloTime);
    if (rank <= 0 || rank >= comm.size() || ParentOf(rank) != comm.rank()) continue;
    if (std::ranges::find(peers, rank, &Peer::rank) != peers.end()) continue;
    link->Send(Hello(comm, token));
    peers.push_back({rank, std::move(link)});
    --count;
  }
}

std::unique_ptr<PeerLink> ConnectTo(const sockaddr_in& address, int parent, const Communicator& comm,
                                    uint64_t token) {
  std::unique_ptr<PeerLink> link = NewSocket();
  if (link == nullptr) return nullptr;
  const auto* const to = reinterpret_cast<const sockaddr*>(&address);
  if (connect(link->fd(), to, sizeof address) != 0 && errno != EINPROGRESS) return nullptr;
  if (!WaitUntil(link->fd(), POLLOUT, Clock::now() + kConnectTime)) return nullptr;
  link->Send(Hello(comm, token));
  if (HelloFrom(*link, token, kAnswerTime) != parent) return nullptr;
  return link;
}

std::string ListOf(const Offer& offer) {
  return absl::StrJoin(offer.addresses, offer.addresses + offer.count, ", ",
                       [](std::string* out, in_addr address) {
                         char text[INET_ADDRSTRLEN] = {};
                         out->append(inet_ntop(AF_INET, &address, text, sizeof text));
                       });
}

}  // namespace

PeerLink::~PeerLink() {
  close(fd_);
}

void PeerLink::Send(std::span<const PeerMessage> messages) {
  if (ended_) return;
  if (out_.size() <= kMostUnsent) Queue(messages);
  Flush();
}

void PeerLink::SendLast(const PeerMessage& message) {
  Queue(std::span(&message, 1));
  ended_ = true;
  Flush();
}

void PeerLink::Queue(std::span<const PeerMessage> messages) {
  const auto bytes = std::as_bytes(messages);
  out_.insert(out_.end(), bytes.begin(), bytes.end());
}

void PeerLink::Flush() {
  const ssize_t sent = out_.empty() ? 0 : send(fd_, out_.data(), out_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  // The system reports an error once: to this call, or to recv.
  if (sent < 0 && errno != EAGAIN && errno != EINTR && errno != EPIPE && errno != ECONNRESET) error_ = errno;
  if (sent > 0) out_.erase(out_.begin(), out_.begin() + sent);
  if (ended_ && out_.empty()) shutdown(fd_, SHUT_WR);
}

bool PeerLink::Receive(const std::function<void(const PeerMessage&)>& handle) {
  Flush();
  while (true) {
    std::byte bytes[4096];
    const ssize_t got = recv(fd_, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return true;
    if (got < 0 && errno != ECONNRESET) error_ = errno;
    if (got <= 0) return false;
    in_.insert(in_.end(), bytes, bytes + got);
    size_t used = 0;
    for (PeerMessage message; in_.size() - used >= sizeof message; used += sizeof message) {
      std::memcpy(&message, in_.data() + used, sizeof message);
      handle(message);
    }
    in_.erase(in_.begin(), in_.begin() + static_cast<ptrdiff_t>(used));
  }
}

absl::StatusOr<std::vector<Peer>> ConnectPeers(Communicator& comm) {
  std::vector<Peer> peers;
  if (comm.size() == 1) return peers;
  const int first_child = kFanOut * comm.rank() + 1;
  const int children = std::clamp(comm.size() - first_child, 0, kFanOut);
  std::unique_ptr<PeerLink> listener;
  std::vector<Offer> offers(static_cast<size_t>(comm.size()));
  Offer& mine = offers[static_cast<size_t>(comm.rank())];
  if (comm.rank() == 0) {
    std::random_device random;
    mine.token = uint64_t{random()} << 32 | random();
  }
  if (children > 0) {
    listener = Listen(mine.port);
    FindAddresses(mine);
  }
  comm.AllGather(&mine, offers.data(), sizeof mine, {}).Wait();
  const uint64_t token = offers[0].token;

  bool reached = true;
  if (comm.rank() > 0) {
    const int parent = ParentOf(comm.rank());
    const Offer& offer = offers[static_cast<size_t>(parent)];
    std::unique_ptr<PeerLink> link;
    for (int i = 0; i < offer.count && offer.port != 0 && link == nullptr; ++i)
      link = ConnectTo(AddressOf(offer.addresses[i], offer.port), parent, comm, token);
    reached = link != nullptr;
    peers.push_back({parent, std::move(link)});
  }
  if (listener != nullptr && reached) AcceptChildren(*listener, comm, token, children, peers);
  listener.reset();  // refuses the ranks that still wait for an answer
  int64_t lost = reached ? comm.size() : comm.rank();
  comm.AllReduce(&lost, 1, CommType::kI64, ReduceOp::kMin, {}).Wait();
  if (lost == comm.size()) return peers;
  const int parent = ParentOf(static_cast<int>(lost));
  const Offer& offer = offers[static_cast<size_t>(parent)];
  return Unavailable("rank ", lost, " cannot reach rank ", parent, " at port ", offer.port, " of ",
                     ListOf(offer),
                     "; allow TCP connections between the ranks' machines, or disable the watchdog "
                     "(--watchdog_seconds=0)");
}

}  // namespace deeper
