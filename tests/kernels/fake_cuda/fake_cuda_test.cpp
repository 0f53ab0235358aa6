// What the fake itself promises: order, memory, captures, faults on request.
#include "tests/kernels/fake_cuda/fake_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "kernels/base/cuda_check.h"

namespace deeper::fake_cuda {
namespace {

constexpr uint64_t kSeeds = 32;

template <class Body>
void WithSeeds(const Body& body) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(seed);
    Reset({.seed = seed});
    body();
  }
}

struct Freed {
  void operator()(void* data) const { cudaFree(data); }
};
struct FreedHost {
  void operator()(void* data) const { cudaFreeHost(data); }
};
template <class T>
auto DeviceMemory(size_t count) {
  void* data = nullptr;
  DEEPER_CUDA_CHECK(cudaMalloc(&data, count * sizeof(T)));
  return std::unique_ptr<T, Freed>(static_cast<T*>(data));
}
template <class T>
auto PinnedMemory(size_t count) {
  void* data = nullptr;
  DEEPER_CUDA_CHECK(cudaMallocHost(&data, count * sizeof(T)));
  return std::unique_ptr<T, FreedHost>(static_cast<T*>(data));
}

void Copy(void* to, const void* from, size_t bytes, const CudaStream& stream) {
  DEEPER_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream.get()));
}
void Synchronize(const CudaStream& stream) {
  DEEPER_CUDA_CHECK(cudaStreamSynchronize(stream.get()));
}
void Record(const CudaEvent& event, const CudaStream& stream) {
  DEEPER_CUDA_CHECK(cudaEventRecord(event.get(), stream.get()));
}
void Wait(const CudaStream& stream, const CudaEvent& event) {
  DEEPER_CUDA_CHECK(cudaStreamWaitEvent(stream.get(), event.get(), 0));
}
void Note(std::string& log, const CudaStream& stream, char what) {
  ASSERT_EQ(Launch(stream.get(), std::string("note ") + what, [&log, what] { log += what; }), cudaSuccess);
}

class FakeCuda : public ::testing::Test {
 protected:
  void TearDown() override { Reset({}); }
};
using FakeCudaDeathTest = FakeCuda;

TEST_F(FakeCuda, AStreamKeepsItsOrderAndStreamsDoNot) {
  std::set<std::string> orders;
  WithSeeds([&] {
    std::string log;
    const CudaStream one = MakeCudaStream(), other = MakeCudaStream();
    for (const char what : {'a', 'b'}) Note(log, one, what);
    for (const char what : {'x', 'y'}) Note(log, other, what);
    Synchronize(one);
    Synchronize(other);
    EXPECT_LT(log.find('a'), log.find('b'));
    EXPECT_LT(log.find('x'), log.find('y'));
    orders.insert(log);
  });
  EXPECT_GE(orders.size(), 4u);
}

TEST_F(FakeCuda, AnEventHoldsUpWhatComesAfterTheWait) {
  std::set<std::string> orders;
  WithSeeds([&] {
    std::string log;
    const CudaStream one = MakeCudaStream(), other = MakeCudaStream();
    const CudaEvent event = MakeCudaEvent();
    Note(log, one, 'a');
    Record(event, one);
    Note(log, one, 'b');
    Note(log, other, 'x');
    Wait(other, event);
    Note(log, other, 'y');
    Synchronize(other);
    Synchronize(one);
    EXPECT_LT(log.find('a'), log.find('y'));
    orders.insert(log);
  });
  const auto last_is = [](char what) {
    return [what](const std::string& order) { return order.back() == what; };
  };
  EXPECT_TRUE(std::any_of(orders.begin(), orders.end(), last_is('b'))) << "nothing ran late";
  EXPECT_TRUE(std::any_of(orders.begin(), orders.end(), last_is('y'))) << "nothing ran early";
}

TEST_F(FakeCuda, TheSameSeedIsTheSameOrder) {
  const auto run = [](uint64_t seed) {
    Reset({.seed = seed});
    std::string log;
    const CudaStream one = MakeCudaStream(), other = MakeCudaStream();
    for (char what = 'a'; what < 'k'; ++what) Note(log, what % 2 == 0 ? one : other, what);
    Synchronize(one);
    Synchronize(other);
    return log;
  };
  for (uint64_t seed = 0; seed < kSeeds; ++seed) EXPECT_EQ(run(seed), run(seed));
}

TEST_F(FakeCuda, CopiesGoThereAndBack) {
  WithSeeds([] {
    const auto device = DeviceMemory<int>(2);
    const auto pinned = PinnedMemory<int>(2);
    const CudaStream stream = MakeCudaStream();
    pinned.get()[0] = 7;
    Copy(device.get(), pinned.get(), sizeof(int), stream);
    Copy(device.get() + 1, device.get(), sizeof(int), stream);
    Copy(pinned.get() + 1, device.get() + 1, sizeof(int), stream);
    Synchronize(stream);
    EXPECT_EQ(pinned.get()[1], 7);
  });
}

TEST_F(FakeCuda, MemoryIsLimited) {
  Reset({.memory_bytes = 1 << 20});
  void* data = nullptr;
  EXPECT_EQ(cudaMalloc(&data, (1 << 20) + 1), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  const auto all = DeviceMemory<char>(1 << 20);
  size_t available = 1, total = 0;
  EXPECT_EQ(cudaMemGetInfo(&available, &total), cudaSuccess);
  EXPECT_EQ(available, 0u);
}

TEST_F(FakeCudaDeathTest, TheHostTouchesNoDeviceMemory) {
  const auto device = DeviceMemory<int>(4);
  EXPECT_DEATH(device.get()[1] = 1, "the host touches byte 4 of allocation 1, which has 16 bytes");
}

TEST_F(FakeCudaDeathTest, KernelsKeepToWhatIsAllocated) {
  const CudaStream stream = MakeCudaStream();
  const auto run = [&](int* at) {
    (void)Launch(stream.get(), "a kernel", [at] { *at = 1; });
    Synchronize(stream);
  };
  auto device = DeviceMemory<int>(64);
  int* const begin = device.get();
  EXPECT_DEATH(run(begin + 64), "a kernel touches byte 256 of allocation");
  device.reset();
  EXPECT_DEATH(run(begin), "a kernel touches byte 0 of allocation .* is freed");
  EXPECT_DEATH(cudaFree(begin), "not allocated, or not any more");
}

TEST_F(FakeCudaDeathTest, HostMemoryStaysWhileItIsCopied) {
  Reset({});
  const auto device = DeviceMemory<int>(4);
  auto pinned = PinnedMemory<int>(4);
  const CudaStream stream = MakeCudaStream();
  const auto change_source = [&] {
    Copy(device.get(), pinned.get(), 16, stream);
    pinned.get()[3] = 1;
    Synchronize(stream);
  };
  EXPECT_DEATH(change_source(), "from pinned memory to device: the host changed what a copy under way reads");
  const auto change_target = [&] {
    Copy(pinned.get(), device.get(), 16, stream);
    pinned.get()[3] = 1;
    Synchronize(stream);
  };
  EXPECT_DEATH(change_target(),
               "from device to pinned memory: the host wrote to where a copy is under way to");
  const auto free_target = [&] {
    Copy(pinned.get(), device.get(), 16, stream);
    pinned.reset();
  };
  EXPECT_DEATH(free_target(), "cudaFreeHost: a copy that is under way uses this memory");
  EXPECT_DEATH(Copy(pinned.get(), device.get(), 17, stream), "goes beyond|a copy of 17 bytes");
}

TEST_F(FakeCuda, WhoReadsEarlyFindsNoResult) {
  Reset({.seed = 0});
  const auto device = DeviceMemory<unsigned char>(1);
  const auto pinned = PinnedMemory<unsigned char>(1);
  *pinned = 3;
  const CudaStream stream = MakeCudaStream();
  DEEPER_CUDA_CHECK(cudaMemsetAsync(device.get(), 9, 1, stream.get()));
  Copy(pinned.get(), device.get(), 1, stream);
  EXPECT_EQ(*pinned, 0xCD);
  Synchronize(stream);
  EXPECT_EQ(*pinned, 9);
}

TEST_F(FakeCudaDeathTest, EventsAreRecordedBeforeTheyAreAwaited) {
  const CudaStream stream = MakeCudaStream();
  const CudaEvent event = MakeCudaEvent();
  EXPECT_DEATH(Wait(stream, event), "waits for an event that was never recorded");
  EXPECT_DEATH(cudaEventSynchronize(event.get()), "waits for an event that was never recorded");
}

TEST_F(FakeCudaDeathTest, HandlesEndWithTheirOwner) {
  CudaStream stream = MakeCudaStream();
  const cudaStream_t raw = stream.get();
  stream.reset();
  EXPECT_DEATH(cudaStreamSynchronize(raw), "was destroyed");
  EXPECT_DEATH(cudaStreamSynchronize(nullptr), "the legacy stream");
}

TEST_F(FakeCuda, AThreadKeepsToItsDevice) {
  Reset({.devices = 2});
  ASSERT_EQ(cudaSetDevice(1), cudaSuccess);
  const CudaStream stream = MakeCudaStream();
  std::thread([&] { EXPECT_EQ(cudaStreamSynchronize(stream.get()), cudaErrorInvalidResourceHandle); }).join();
  EXPECT_EQ(cudaStreamSynchronize(stream.get()), cudaSuccess);
  EXPECT_EQ(cudaSetDevice(2), cudaErrorInvalidDevice);
}

TEST_F(FakeCuda, CallsFailOnRequest) {
  Reset({.faults = {{"cudaMallocHost", 2, cudaErrorMemoryAllocation}}});
  void *first = nullptr, *second = nullptr;
  EXPECT_EQ(cudaMallocHost(&first, 8), cudaSuccess);
  EXPECT_EQ(cudaMallocHost(&second, 8), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaMallocHost(&second, 8), cudaSuccess);
  EXPECT_EQ(Calls().at("cudaMallocHost"), 3);
  cudaFreeHost(first);
  cudaFreeHost(second);

  Reset({.faults = {{"launch", 1, cudaErrorIllegalAddress, /*sticky=*/true}}});
  const CudaStream stream = MakeCudaStream();
  EXPECT_EQ(Launch(stream.get(), "a kernel", [] {}), cudaErrorIllegalAddress);
  EXPECT_EQ(cudaStreamSynchronize(stream.get()), cudaErrorIllegalAddress) << "the context is lost";
}

// ---- Captures --------------------------------------------------------------------------------------------

void Begin(const CudaStream& stream) {
  DEEPER_CUDA_CHECK(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal));
}
cudaError_t End(const CudaStream& stream) {
  cudaGraph_t graph = nullptr;
  return cudaStreamEndCapture(stream.get(), &graph);
}

TEST_F(FakeCuda, AGraphReplaysWhatWasCaptured) {
  std::set<std::string> orders;
  WithSeeds([&] {
    std::string log;
    const CudaStream stream = MakeCudaStream(), fork = MakeCudaStream();
    const CudaEvent forked = MakeCudaEvent(), joined = MakeCudaEvent();
    const auto work = [&] {
      Note(log, stream, 'a');
      Record(forked, stream);
      Wait(fork, forked);
      Note(log, fork, 'x');
      Note(log, stream, 'b');
      Record(joined, fork);
      Wait(stream, joined);
      Note(log, stream, 'c');
    };
    work();
    Synchronize(stream);
    log.clear();
    Begin(stream);
    work();
    cudaGraph_t graph = nullptr;
    ASSERT_EQ(cudaStreamEndCapture(stream.get(), &graph), cudaSuccess);
    EXPECT_EQ(log, "") << "a capture ran something";
    cudaGraphExec_t exec = nullptr;
    ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
    ASSERT_EQ(cudaGraphDestroy(graph), cudaSuccess);
    for (int i = 0; i < 2; ++i) {
      log.clear();
      ASSERT_EQ(cudaGraphLaunch(exec, stream.get()), cudaSuccess);
      Synchronize(stream);
      orders.insert(log);
    }
    ASSERT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
  });
  EXPECT_EQ(orders, (std::set<std::string>{"axbc", "abxc"}));
}

TEST_F(FakeCuda, ACaptureRejects) {
  const CudaStream stream = MakeCudaStream(), fork = MakeCudaStream();
  const CudaEvent event = MakeCudaEvent(), before = MakeCudaEvent();
  const auto device = DeviceMemory<int>(1);
  std::string log;
  Note(log, stream, 'a');
  Note(log, fork, 'a');
  Record(before, fork);
  Synchronize(stream);
  int pageable = 0;
  void* data = nullptr;
  const auto rejects = [&](const char* what, cudaError_t expected, const auto& call) {
    SCOPED_TRACE(what);
    Begin(stream);
    EXPECT_EQ(call(), expected);
    EXPECT_EQ(End(stream), cudaErrorStreamCaptureInvalidated);
  };
  rejects("malloc", cudaErrorStreamCaptureUnsupported, [&] { return cudaMalloc(&data, 4); });
  rejects("free", cudaErrorStreamCaptureUnsupported, [&] { return cudaFree(nullptr); });
  rejects("pinned", cudaErrorStreamCaptureUnsupported, [&] { return cudaMallocHost(&data, 4); });
  rejects("synchronise", cudaErrorStreamCaptureUnsupported,
          [&] { return cudaStreamSynchronize(stream.get()); });
  rejects("await", cudaErrorStreamCaptureUnsupported, [&] { return cudaEventSynchronize(before.get()); });
  rejects("query", cudaErrorStreamCaptureUnsupported, [&] { return cudaEventQuery(before.get()); });
  rejects("outside event", cudaErrorStreamCaptureIsolation,
          [&] { return cudaStreamWaitEvent(stream.get(), before.get(), 0); });
  rejects("pageable", cudaErrorStreamCaptureUnsupported,
          [&] { return cudaMemcpyAsync(device.get(), &pageable, 4, cudaMemcpyDefault, stream.get()); });
  rejects("first launch", cudaErrorStreamCaptureUnsupported,
          [&] { return Launch(stream.get(), "never before", [] {}); });
  rejects("legacy stream", cudaErrorStreamCaptureImplicit,
          [&] { return cudaMemsetAsync(device.get(), 0, 4, nullptr); });

  Begin(stream);
  Record(event, stream);
  Wait(fork, event);
  Note(log, fork, 'a');
  EXPECT_EQ(End(stream), cudaErrorStreamCaptureUnjoined);
  EXPECT_EQ(cudaStreamWaitEvent(fork.get(), event.get(), 0), cudaErrorCapturedEvent);
  Note(log, fork, 'a');
  Synchronize(fork);
}

TEST_F(FakeCuda, OtherThreadsMayWorkDuringACapture) {
  const CudaStream stream = MakeCudaStream();
  Begin(stream);
  std::thread([] { DeviceMemory<int>(1); }).join();
  EXPECT_EQ(End(stream), cudaSuccess);
}

}  // namespace
}  // namespace deeper::fake_cuda
