#include "trainer/engine/network.h"

#include <gtest/gtest.h>

#include <memory>

#include "trainer/models/model.h"

namespace deeper {
namespace {

TEST(LeastArenaBytes, IsLessThanAnyArenaAndNotByFar) {
  const auto device = MakeCpuDevice(1);
  for (const char* name : {"googlenet", "googlenet-bn", "nin", "vgg16"}) {
    SCOPED_TRACE(name);
    const Model model = *MakeModel(name, {.num_classes = 10});
    const auto net = *Network::Prepare(model, {.rows = 2, .training = true}, *device);
    const size_t least = Network::LeastArenaBytes(model, 2, DType::kF32);
    EXPECT_LE(least, net->arena_bytes());
    EXPECT_GE(least, net->arena_bytes() / 8);
    EXPECT_EQ(Network::LeastArenaBytes(model, 4, DType::kBf16), least);
  }
}

}  // namespace
}  // namespace deeper
