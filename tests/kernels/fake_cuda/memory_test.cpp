// What a run needs of a GPU's memory, and what it does before it knows.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "tests/kernels/fake_cuda/fake_cuda.h"
#include "tests/kernels/fake_cuda/run.h"
#include "trainer/engine/network.h"
#include "trainer/models/model.h"
#include "trainer/run/train_setup.h"

namespace deeper {
namespace {

// Rows of a forward pass where this much memory is free, and the launches until training could begin.
struct Start {
  int64_t rows = 0, launches = 0;
  size_t train = 0, eval = 0;  // bytes of the arenas
};

Start StartWith(int64_t micro_batch, size_t free) {
  RunConfig config = testing::ShortRun("nin-cifar", DType::kBf16);
  config.device = DeviceType::kCuda;
  config.micro_batch = micro_batch;
  fake_cuda::Reset({.claimed_free = {free}});
  CudaOptions options;
  options.deterministic = true;
  const auto device = *MakeCudaDevice(options);
  const auto comm = MakeSingleCommunicator();
  TrainSetup setup(config, *comm, *device, nullptr);
  EXPECT_EQ(setup.Prepare(), absl::OkStatus());
  return {setup.net->options().rows, fake_cuda::Calls().at("launch"), setup.net->arena_bytes(),
          setup.eval_net->arena_bytes()};
}

TEST(FakeCudaMemory, TheEvaluationCounts) {
  constexpr size_t kMuch = size_t{1} << 30;
  const Start all = StartWith(0, kMuch);
  EXPECT_EQ(all.rows, 4);
  const auto free_for = [](size_t bytes) { return static_cast<size_t>(static_cast<double>(bytes) / 0.8); };
  EXPECT_LT(StartWith(0, free_for(all.train + all.eval / 2)).rows, 4);
  EXPECT_LT(StartWith(0, free_for(all.train + all.eval)).rows, 4) << "incoming images";
  EXPECT_EQ(StartWith(0, free_for(all.train + all.eval + (1 << 20))).rows, 4);
}

TEST(FakeCudaMemory, NothingIsTunedThatCannotFit) {
  EXPECT_EQ(StartWith(0, 1000).rows, 1);
  EXPECT_EQ(StartWith(0, 1000).launches, StartWith(1, 1000).launches);
}

// 5350 x 224 x 224 x 8: of alexnet the padded images, of vgg16 the output of its first convolution, which is
// narrow here (narrow_models.cpp).
TEST(FakeCudaMemory, TensorsHaveLessThan2To31Elements) {
  fake_cuda::Reset({});
  const auto device = *MakeCudaDevice({});
  for (const auto& [name, precision] : {std::pair("alexnet", DType::kBf16), {"vgg16", DType::kF32}}) {
    const absl::Status status =
        Network::Prepare(*MakeModel(name, {}), {.rows = 5350, .precision = precision}, *device).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << name << ": " << status;
    EXPECT_THAT(status.message(), ::testing::HasSubstr("2147532800 elements"));
  }
  EXPECT_EQ(fake_cuda::Calls()["launch"], 0) << "tuned in vain";
}

}  // namespace
}  // namespace deeper
