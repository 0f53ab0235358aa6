#include "comm/network_interfaces.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <sys/socket.h>

namespace deeper {

std::vector<NetworkInterface> NetworkInterfaces() {
  std::vector<NetworkInterface> found;
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return found;
  for (const ifaddrs* it = all; it != nullptr; it = it->ifa_next) {
    if (it->ifa_addr == nullptr || it->ifa_addr->sa_family == AF_PACKET) continue;
    NetworkInterface& interface = found.emplace_back();
    interface.name = it->ifa_name;
    interface.is_up = (it->ifa_flags & IFF_UP) != 0;
    interface.is_loopback = (it->ifa_flags & IFF_LOOPBACK) != 0;
    if (it->ifa_addr->sa_family == AF_INET)
      interface.ipv4 = reinterpret_cast<const sockaddr_in*>(it->ifa_addr)->sin_addr;
  }
  freeifaddrs(all);
  return found;
}

}  // namespace deeper
