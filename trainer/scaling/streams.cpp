#include "trainer/scaling/streams.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "comm/network_interfaces.h"
#include "kernels/base/clock.h"

namespace deeper {
namespace {

constexpr double kConnectSeconds = 2, kWarmupSeconds = 0.1, kTimedSeconds = 0.4, kMostSeconds = 4;
constexpr size_t kChunkBytes = size_t{256} << 10;

// A socket whose calls give up after kConnectSeconds.
class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {
    if (fd_ < 0) return;
    const timeval patience = {.tv_sec = static_cast<time_t>(kConnectSeconds), .tv_usec = 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  }
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&&) = delete;
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_;
};

// False if the interface has no IPv4 address. An empty name: any interface that is up, except loopback.
bool FindAddress(const std::string& name, in_addr& address) {
  for (const NetworkInterface& interface : NetworkInterfaces()) {
    if (!interface.ipv4 || !interface.is_up) continue;
    if (name.empty() ? interface.is_loopback : name != interface.name) continue;
    address = *interface.ipv4;
    return true;
  }
  return false;
}

bool IsReadable(int fd, double seconds) {
  pollfd waited{fd, POLLIN, 0};
  return poll(&waited, 1, static_cast<int>(1e3 * seconds)) > 0;
}

// The connections that begin with the token; fewer than kStreams if they take too long.
std::vector<Socket> Accept(int listener, uint64_t token) {
  std::vector<Socket> streams;
  const double deadline = Seconds() + kConnectSeconds;
  while (streams.size() < kStreams) {
    const double left = deadline - Seconds();
    if (left <= 0 || !IsReadable(listener, left)) break;
    Socket stream(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
    uint64_t said = 0;
    if (stream.fd() < 0 || !IsReadable(stream.fd(), left)) continue;
    if (recv(stream.fd(), &said, sizeof said, MSG_WAITALL) == sizeof said && said == token)
      streams.push_back(std::move(stream));
  }
  return streams;
}

}  // namespace

StreamsReceiver::StreamsReceiver(const char* interface) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  if (!FindAddress(interface, address.sin_addr)) return;
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  socklen_t size = sizeof address;
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  if (fd_ < 0 || bind(fd_, any, size) != 0 || listen(fd_, kStreams) != 0 || getsockname(fd_, any, &size) != 0)
    return;
  std::random_device random;
  address_ = {address.sin_addr, ntohs(address.sin_port), uint64_t{random()} << 32 | random()};
}

StreamsReceiver::~StreamsReceiver() {
  if (fd_ >= 0) close(fd_);
}

double StreamsReceiver::Measure() {
  if (address_.port == 0) return 0;
  const std::vector<Socket> streams = Accept(fd_, address_.token);
  if (streams.size() < kStreams) return 0;
  std::atomic<bool> timed = false, done = false;
  std::atomic<int64_t> bytes = 0;
  double seconds = 0;
  {
    std::vector<std::jthread> threads;
    for (const Socket& stream : streams) {
      threads.emplace_back([&, fd = stream.fd()] {
        std::vector<std::byte> chunk(kChunkBytes);
        while (!done) {
          const ssize_t got = recv(fd, chunk.data(), chunk.size(), 0);
          if (got <= 0) return;
          if (timed && !done) bytes += got;
        }
      });
    }
    std::this_thread::sleep_for(std::chrono::duration<double>(kWarmupSeconds));
    timed = true;
    const double start = Seconds();
    std::this_thread::sleep_for(std::chrono::duration<double>(kTimedSeconds));
    done = true;
    seconds = Seconds() - start;
    for (const Socket& stream : streams) shutdown(stream.fd(), SHUT_RDWR);  // ends calls of recv
  }
  return static_cast<double>(bytes) / seconds;
}

void SendStreams(const StreamsAddress& to) {
  if (to.port == 0) return;
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(to.port);
  address.sin_addr = to.address;
  const double deadline = Seconds() + kMostSeconds;
  std::vector<std::jthread> threads;
  for (int i = 0; i < kStreams; ++i) {
    threads.emplace_back([&] {
      const Socket stream(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      const auto* const there = reinterpret_cast<const sockaddr*>(&address);
      if (stream.fd() < 0 || connect(stream.fd(), there, sizeof address) != 0) return;
      if (send(stream.fd(), &to.token, sizeof to.token, MSG_NOSIGNAL) != sizeof to.token) return;
      const std::vector<std::byte> chunk(kChunkBytes);
      while (Seconds() < deadline && send(stream.fd(), chunk.data(), chunk.size(), MSG_NOSIGNAL) > 0) {
      }
    });
  }
}

void MeasureStreams(Communicator& comm, RankHealth& mine) {
  struct Offer {
    char host[sizeof RankHealth::host];
    StreamsAddress address;
    bool first_of_host;
  };
  Offer offer = {};
  std::memcpy(offer.host, mine.host, sizeof offer.host);
  offer.first_of_host = comm.local_rank() == 0;
  std::unique_ptr<StreamsReceiver> receiver;
  if (offer.first_of_host && comm.local_size() < comm.size()) {
    receiver = std::make_unique<StreamsReceiver>(mine.network);
    offer.address = receiver->address();
  }
  std::vector<Offer> offers(static_cast<size_t>(comm.size()));
  comm.AllGather(&offer, offers.data(), sizeof offer, {}).Wait();

  struct HostLink {  // ranks
    int from, to;
  };
  std::vector<HostLink> links;
  for (int to = 0, from = comm.size() - 1; to < comm.size(); from = to++) {
    const Offer &there = offers[static_cast<size_t>(to)], &here = offers[static_cast<size_t>(from)];
    if (there.first_of_host && std::strcmp(there.host, here.host) != 0) links.push_back({from, to});
  }
  // As in a ring: every second host receives. With an odd number of hosts, the last has a turn of its own.
  for (size_t turn = 0; turn < 3; ++turn) {
    comm.Barrier();
    for (size_t i = 0; i < links.size(); ++i) {
      const bool alone = links.size() % 2 == 1 && i + 1 == links.size();
      if ((alone ? 2 : i % 2) != turn) continue;
      if (links[i].to == comm.rank()) mine.streams_bytes_per_second = receiver->Measure();
      if (links[i].from == comm.rank()) SendStreams(offers[static_cast<size_t>(links[i].to)].address);
    }
  }
  comm.Barrier();
}

}  // namespace deeper
