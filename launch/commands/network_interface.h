// What the network of this host should give.
#pragma once

#include <string>

namespace deeper {

struct NetworkInterface {
  std::string name;             // empty: there is none whose speed is known
  double bytes_per_second = 0;  // each way, as its driver says
};

// Among the interfaces that are up and have an address, but for loopback. Asks the kernel of this network
// namespace.
NetworkInterface FastestInterface();

}  // namespace deeper
