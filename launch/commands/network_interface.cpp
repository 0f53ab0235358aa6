#include "launch/commands/network_interface.h"

#include <ifaddrs.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>

namespace deeper {
namespace {

// In Mbit/s; 0 where the driver does not know.
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

}  // namespace

NetworkInterface FastestInterface() {
  NetworkInterface fastest;
  const int socket_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ifaddrs* all = nullptr;
  if (socket_fd >= 0 && getifaddrs(&all) == 0) {
    for (const ifaddrs* it = all; it != nullptr; it = it->ifa_next) {
      const bool usable = it->ifa_addr != nullptr && it->ifa_addr->sa_family != AF_PACKET &&
                          (it->ifa_flags & IFF_UP) != 0 && (it->ifa_flags & IFF_LOOPBACK) == 0;
      const double speed = usable ? SpeedOf(socket_fd, it->ifa_name) * 1e6 / 8 : 0;
      if (speed > fastest.bytes_per_second) fastest = {it->ifa_name, speed};
    }
    freeifaddrs(all);
  }
  if (socket_fd >= 0) close(socket_fd);
  return fastest;
}

}  // namespace deeper
