#include "comm/network_interfaces.h"

#include <arpa/inet.h>

#include <algorithm>

#include "gtest/gtest.h"

namespace deeper {
namespace {

TEST(NetworkInterfaces, ContainLoopback) {
  const auto found = NetworkInterfaces();
  EXPECT_TRUE(std::ranges::any_of(found, [](const NetworkInterface& interface) {
    return interface.is_loopback && interface.is_up && interface.ipv4 &&
           interface.ipv4->s_addr == htonl(INADDR_LOOPBACK);
  }));
}

}  // namespace
}  // namespace deeper
