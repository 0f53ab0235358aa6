// The network interfaces of this host.
#pragma once

#include <netinet/in.h>

#include <optional>
#include <string>
#include <vector>

namespace deeper {

struct NetworkInterface {
  std::string name;  // such as "eth0"
  bool is_up = false;
  bool is_loopback = false;
  std::optional<in_addr> ipv4;  // in network byte order; none: the address is of another family, such as IPv6
};

// One entry per address, in the order of the system, within the network namespace of this process. Interfaces
// without an address are left out. Empty if the system does not answer.
std::vector<NetworkInterface> NetworkInterfaces();

}  // namespace deeper
