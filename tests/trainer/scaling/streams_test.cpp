#include "trainer/scaling/streams.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

namespace deeper {
namespace {

TEST(Streams, MeasuresWhatArrives) {
  StreamsReceiver receiver("lo");
  std::jthread sender([to = receiver.address()] { SendStreams(to); });
  EXPECT_GT(receiver.Measure(), 1e6);
}

TEST(Streams, CountsNoOtherProgram) {
  StreamsReceiver receiver("lo");
  StreamsAddress other = receiver.address();
  other.token ^= 1;
  std::jthread sender([&] { SendStreams(other); });
  EXPECT_EQ(receiver.Measure(), 0);
}

TEST(Streams, WaitsForNobodyForLong) {
  StreamsReceiver receiver("lo");
  EXPECT_EQ(receiver.Measure(), 0);
}

TEST(Streams, AnInterfaceWithoutAddressGivesNothing) {
  StreamsReceiver receiver("no-such-if");
  EXPECT_EQ(receiver.address().port, 0);
  EXPECT_EQ(receiver.Measure(), 0);
  SendStreams(receiver.address());  // returns
}

}  // namespace
}  // namespace deeper
