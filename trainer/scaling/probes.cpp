#include "trainer/scaling/probes.h"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

#include "absl/strings/numbers.h"
#include "comm/agree.h"
#include "comm/network_interfaces.h"
#include "data/io/atomic_file.h"
#include "data/io/directory_lock.h"
#include "kernels/base/buffer.h"
#include "kernels/base/small_buffer.h"
#include "kernels/base/status.h"
#include "trainer/scaling/statistics.h"

namespace deeper {
namespace {

constexpr size_t kLinkBytes = size_t{4} << 20;
constexpr int kLinkRounds = 3, kPings = 50, kClockRounds = 9;
constexpr size_t kAllReduceBytes[] = {32 << 10, 128 << 10, 1 << 20,
                                      8 << 20};  // large enough for rings; the last: a bucket

// Of the first processor; 0 if the system does not report it.
double ClockMhz() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    double mhz = 0;
    if (line.starts_with("cpu MHz") && absl::SimpleAtod(line.substr(line.find(':') + 1), &mhz)) return mhz;
  }
  return 0;
}

// In Mbit/s; 0 if the driver does not know it.
double SpeedOf(int socket, const char* name) {
  ethtool_cmd question = {};
  question.cmd = ETHTOOL_GSET;
  ifreq request = {};
  std::snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
  request.ifr_data = reinterpret_cast<char*>(&question);
  if (ioctl(socket, SIOCETHTOOL, &request) != 0) return 0;
  const uint32_t mbit = ethtool_cmd_speed(&question);
  return mbit == static_cast<uint32_t>(SPEED_UNKNOWN) ? 0 : mbit;
}

// A tunnel, or a bridge of containers or virtual machines only. The speed that it reports is that of no
// cable.
bool IsVirtual(const std::string& name) {
  const std::string net = "/sys/class/net/";
  std::error_code none;
  if (std::filesystem::exists(net + name + "/tun_flags", none)) return true;
  if (!std::filesystem::exists(net + name + "/bridge", none)) return false;
  std::filesystem::directory_iterator port(net + name + "/brif", none);
  for (; !none && port != std::filesystem::directory_iterator(); port.increment(none))
    if (std::filesystem::exists(net + port->path().filename().string() + "/device", none)) return false;
  return true;
}

// Among the interfaces that are up and have an address, except loopback, tunnels and bridges of containers,
// in this network namespace.
void FindFastestInterface(RankHealth& mine) {
  const int socket_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (socket_fd < 0) return;
  for (const NetworkInterface& interface : NetworkInterfaces()) {
    if (!interface.is_up || interface.is_loopback || IsVirtual(interface.name)) continue;
    const double speed = SpeedOf(socket_fd, interface.name.c_str()) * 1e6 / 8;
    if (speed <= mine.nominal_bytes_per_second) continue;
    mine.nominal_bytes_per_second = speed;
    std::snprintf(mine.network, sizeof mine.network, "%s", interface.name.c_str());
  }
  close(socket_fd);
}

// Sends `count` messages over each link, from even ranks first, so that no rank sends and receives at once.
// Returns the seconds per message that this rank received.
double TimeLink(Communicator& comm, std::byte* to_next, std::byte* from_previous, size_t bytes, int count) {
  const int previous = (comm.rank() + comm.size() - 1) % comm.size();
  double seconds = 0;
  // With an odd number of ranks, the last rank and its successor are even: a third turn.
  for (int turn = 0; turn < 3; ++turn) {
    const auto turn_of = [&](int rank) { return rank % 2 == 1 ? 1 : rank + 1 == comm.size() ? 2 : 0; };
    comm.Barrier();
    const double start = Seconds();
    for (int i = 0; i < count; ++i)
      comm.Shift(turn_of(comm.rank()) == turn ? to_next : nullptr,
                 turn_of(previous) == turn ? from_previous : nullptr, bytes)
          .Wait();
    if (turn_of(previous) == turn) seconds = (Seconds() - start) / count;
  }
  return seconds;
}

}  // namespace

void DescribeRank(const Device& device, RankHealth& mine) {
  gethostname(mine.host, sizeof mine.host - 1);
  std::snprintf(mine.device, sizeof mine.device, "%s", device.Describe().c_str());
  FindFastestInterface(mine);
  mine.memory_bytes = static_cast<double>(device.AvailableBytes());
  mine.clock_mhz = ClockMhz();
  mine.cores = AvailableCores();
  struct statvfs shared_memory = {};
  if (statvfs("/dev/shm", &shared_memory) == 0) {
    mine.shared_memory_bytes =
        static_cast<double>(shared_memory.f_blocks) * static_cast<double>(shared_memory.f_frsize);
  }
}

void MeasureLink(Communicator& comm, RankHealth& mine) {
  std::vector<std::byte> sent(kLinkBytes), received(kLinkBytes);
  TimeLink(comm, sent.data(), received.data(), 64 << 10, 1);  // opens connections
  mine.link_latency_us = 1e6 * TimeLink(comm, sent.data(), received.data(), 1, kPings);
  double fastest = 1e30;
  for (int round = 0; round < kLinkRounds; ++round)
    fastest = std::min(fastest, TimeLink(comm, sent.data(), received.data(), kLinkBytes, 1));
  mine.link_bytes_per_second = kLinkBytes / fastest;
}

std::vector<CommSample> MeasureAllReduces(Communicator& comm, Device& device, ReduceOp op) {
  std::vector<CommSample> samples;
  const Buffer memory = AllocateSmall(device, std::ranges::max(kAllReduceBytes));
  for (const size_t bytes : kAllReduceBytes) {
    double fastest = 1e30;
    for (int round = 0; round < kLinkRounds; ++round) {
      comm.Barrier();
      const double seconds = SecondsOf([&] {
        comm.AllReduce(memory.data(), bytes / sizeof(float), CommType::kF32, op, device.stream()).Wait();
        device.Synchronize();
      });
      fastest = std::min(fastest, 1e3 * seconds);
    }
    samples.push_back({static_cast<double>(bytes), fastest});
  }
  return samples;
}

void MeasureClockSkew(Communicator& comm, RankHealth& mine) {
  std::vector<double> skews;
  for (int round = 0; round < kClockRounds; ++round) {
    comm.Barrier();
    double now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    const double own = now;
    comm.Broadcast(&now, sizeof now, 0, {}).Wait();
    skews.push_back(own - now);
  }
  mine.clock_skew_seconds = Median(skews);
}

absl::Status ExamineDirectory(const std::string& directory, Communicator& comm, RankHealth& mine) {
  absl::StatusOr<DirectoryLock> lock = DirectoryLock();
  if (comm.rank() == 0) {
    const absl::Status created = CreateDirectories(directory);
    lock = created.ok() ? DirectoryLock::Take(directory) : created;
  }
  RETURN_IF_ERROR(Agree(comm, WithExitCode(lock.status(), ExitCode::kCheckpoint)));
  if (comm.rank() != 0) mine.sees_lock = absl::IsFailedPrecondition(DirectoryLock::Take(directory).status());
  struct statvfs space = {};
  const absl::Status there =
      statvfs(directory.c_str(), &space) == 0 ? absl::OkStatus() : IoError("look at", directory, errno);
  mine.free_bytes = static_cast<double>(space.f_bavail) * static_cast<double>(space.f_frsize);
  return Agree(comm, WithExitCode(there, ExitCode::kCheckpoint));  // before rank 0 releases the lock
}

}  // namespace deeper
