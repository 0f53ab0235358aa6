#include "comm/nccl/device_communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <numeric>
#include <thread>
#include <vector>

#include "comm/gradient_reducer.h"
#include "comm/nccl/staged_communicator.h"
#include "tests/comm/threads_communicator.h"

namespace deeper {
namespace {

using testing::AllOf;
using testing::HasSubstr;

GpuPlace Place(const char* host, const char* gpu, const char* nccl_unavailable = "") {
  GpuPlace place;
  std::snprintf(place.host, sizeof place.host, "%s", host);
  std::snprintf(place.gpu, sizeof place.gpu, "%s", gpu);
  std::snprintf(place.nccl_unavailable, sizeof place.nccl_unavailable, "%s", nccl_unavailable);
  return place;
}

constexpr char kGpu0[] = "0000:3b:00.0", kGpu1[] = "0000:86:00.0";

TEST(ChooseTransport, NcclWhereEveryRankHasAGpu) {
  const std::vector<GpuPlace> places = {Place("a", kGpu0), Place("a", kGpu1), Place("b", kGpu0)};
  EXPECT_TRUE(ChooseTransport(places, Transport::kAuto)->nccl);
  EXPECT_TRUE(ChooseTransport(places, Transport::kNccl)->nccl);
  EXPECT_FALSE(ChooseTransport(places, Transport::kMpi)->nccl);
}

void ExpectNoNccl(const std::vector<GpuPlace>& places, const testing::Matcher<std::string>& why) {
  const absl::StatusOr<DeviceTransport> automatic = ChooseTransport(places, Transport::kAuto);
  EXPECT_FALSE(automatic->nccl);
  EXPECT_THAT(automatic->reason, why);
  EXPECT_FALSE(ChooseTransport(places, Transport::kMpi)->nccl);
  const absl::Status refused = ChooseTransport(places, Transport::kNccl).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), AllOf(why, HasSubstr("--comm=nccl"), HasSubstr("--comm=mpi")));
}

TEST(ChooseTransport, NamesRanksThatShareAGpu) {
  ExpectNoNccl({Place("a", kGpu0), Place("b", kGpu0), Place("b", kGpu1), Place("b", kGpu0)},
               HasSubstr("ranks 1 and 3 are both on GPU 0000:3b:00.0 of host b"));
}

TEST(ChooseTransport, NamesTheRankThatNcclCannotServe) {
  ExpectNoNccl({Place("a", kGpu0), Place("b", kGpu0, "cannot load NCCL: no such file")},
               HasSubstr("rank 1 on host b: cannot load NCCL: no such file"));
  ExpectNoNccl({Place("a", kGpu0), Place("b", "")}, HasSubstr("rank 1 on host b has no GPU"));
}

// A fake GPU in host memory that delays as much as it may: work beside the stream runs only when waited for.
class LazyDevice final : public Device {
 public:
  DeviceType type() const override { return DeviceType::kCuda; }
  std::string Describe() const override { return "lazy"; }
  int64_t channel_block(DType) const override { return 1; }
  Buffer Allocate(size_t bytes) override { return AllocateHost(bytes); }
  Buffer AllocateStaging(size_t bytes) override {
    ++stagings;
    return AllocateHost(bytes);
  }
  size_t AvailableBytes() const override { return 0; }
  Stream stream() const override { return {}; }
  void Synchronize() override {}
  void Copy(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void Upload(void* to, const void* from, size_t bytes) override {
    uploads_.push_back([=] { std::memcpy(to, from, bytes); });
  }
  void JoinUploads() override {
    for (const auto& upload : uploads_) upload();
    uploads_.clear();
  }
  std::unique_ptr<Download> StartDownload(void* to, const void* from, size_t bytes) override {
    return std::make_unique<LazyDownload>([=] { std::memcpy(to, from, bytes); });
  }

  int stagings = 0;

 private:
  class LazyDownload final : public Download {
   public:
    explicit LazyDownload(std::function<void()> copy) : copy_(std::move(copy)) {}
    void Wait() override { copy_(); }

   private:
    std::function<void()> copy_;
  };
  std::vector<std::function<void()>> uploads_;
};

using Floats = std::vector<float>;

void OnStagedRanks(int ranks, const std::function<void(Communicator&, LazyDevice&)>& body) {
  const auto inner = MakeThreadCommunicators(ranks);
  std::vector<std::jthread> threads;
  for (const auto& comm : inner) {
    threads.emplace_back([&] {
      LazyDevice device;
      body(*MakeStagedCommunicator(*comm, device), device);
    });
  }
}

TEST(StagedCommunicator, DoesWhatTheOneInsideDoes) {
  for (const int ranks : {1, 2, 3}) {
    OnStagedRanks(ranks, [&](Communicator& comm, LazyDevice&) {
      const auto rank = static_cast<float>(comm.rank());
      const auto sum = static_cast<float>(ranks * (ranks + 1) / 2);
      const auto n = static_cast<size_t>(ranks);
      Floats mine(5, rank + 1);
      comm.AllReduce(mine.data(), 5, CommType::kF32, ReduceOp::kSum, {}).Wait();
      EXPECT_EQ(mine, Floats(5, sum));

      Floats rounded(5, rank + 1), residual(5);
      comm.SumInBf16(rounded.data(), residual.data(), 5, {}).Wait();
      EXPECT_EQ(rounded, Floats(5, sum));

      Floats whole(2 * n), shard(2);
      std::iota(whole.begin(), whole.end(), 0.0f);
      const Floats whole_before = whole;
      comm.ReduceScatter(whole.data(), shard.data(), 2, {}).Wait();
      EXPECT_EQ(shard,
                (Floats{2 * rank * static_cast<float>(ranks), (2 * rank + 1) * static_cast<float>(ranks)}));
      EXPECT_EQ(whole, whole_before);

      const Floats part(3, rank);
      Floats all(3 * n);
      comm.AllGather(part.data(), all.data(), 3 * sizeof(float), {}).Wait();
      for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], static_cast<float>(i / 3));
      Floats in_place(3 * n);
      std::fill_n(in_place.begin() + 3 * comm.rank(), 3, rank);
      comm.AllGather(in_place.data() + 3 * comm.rank(), in_place.data(), 3 * sizeof(float), {}).Wait();
      EXPECT_EQ(in_place, all);

      Floats given(4, rank);
      comm.Broadcast(given.data(), 4 * sizeof(float), ranks - 1, {}).Wait();
      EXPECT_EQ(given, Floats(4, static_cast<float>(ranks - 1)));
      comm.AllReduce(nullptr, 0, CommType::kF32, ReduceOp::kSum, {}).Wait();
    });
  }
}

// After Finish, the gradients of the next step may be written. Every step reuses the same staging memory.
TEST(StagedCommunicator, SumsGradientsStepAfterStep) {
  OnStagedRanks(2, [](Communicator& comm, LazyDevice& device) {
    Floats arena(30);
    GradientReducer reducer(comm, arena.data(), {{20, 10}, {10, 10}, {0, 10}}, 1);
    EXPECT_FALSE(reducer.recordable());
    for (int step = 0; step < 4; ++step) {
      for (const size_t piece : {1u, 0u, 2u}) {
        std::fill_n(arena.begin() + 20 - 10 * static_cast<ptrdiff_t>(piece), 10,
                    static_cast<float>(comm.rank() + step) + 10 * static_cast<float>(piece));
        reducer.Ready(piece, {});
      }
      reducer.Finish({});
      for (size_t i = 0; i < arena.size(); ++i) {
        EXPECT_EQ(arena[i], static_cast<float>(1 + 2 * step) + 20 * static_cast<float>(2 - i / 10)) << i;
      }
      EXPECT_EQ(device.stagings, 3);
    }
  });
}

TEST(MakeDeviceCommunicator, NoneWhereBuffersAreHostMemoryAnyway) {
  const auto comm = MakeSingleCommunicator();
  LazyDevice device;
  EXPECT_EQ(MakeDeviceCommunicator(*comm, device, Transport::kAuto)->comm, nullptr);
  for (const auto& rank : MakeThreadCommunicators(2))
    EXPECT_EQ(MakeDeviceCommunicator(*rank, *MakeCpuDevice(1), Transport::kAuto)->comm, nullptr);
}

TEST(MakeDeviceCommunicator, GoesByWayOfTheHostWithoutNccl) {
  const auto ranks = MakeThreadCommunicators(2);
  std::vector<std::jthread> threads;
  for (const auto& comm : ranks) {
    threads.emplace_back([&] {
      LazyDevice device;  // no address: not a GPU
      const auto made = MakeDeviceCommunicator(*comm, device, Transport::kAuto);
      EXPECT_FALSE(made->comm->recordable());
      EXPECT_THAT(made->description, HasSubstr("host memory (rank 0 on host "));
      EXPECT_EQ(made->ranks_on_device, 2);
      EXPECT_EQ(MakeDeviceCommunicator(*comm, device, Transport::kNccl).status().code(),
                absl::StatusCode::kFailedPrecondition);
    });
  }
}

}  // namespace
}  // namespace deeper
