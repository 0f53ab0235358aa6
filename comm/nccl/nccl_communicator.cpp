#include "comm/nccl/nccl_communicator.h"

#include <cuda_runtime_api.h>

#include <bit>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/nccl/nccl_library.h"
#include "kernels/base/cuda_check.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

constexpr std::chrono::seconds kDeadline(120);  // for NCCL to start and to end, which all ranks do at once
constexpr std::chrono::seconds kUnlimited(1'000'000'000);
constexpr std::chrono::milliseconds kPollInterval(100);

ncclDataType_t Native(CommType type) {
  constexpr ncclDataType_t kTypes[] = {ncclFloat32, ncclFloat64, ncclInt64, ncclUint8};
  return kTypes[static_cast<size_t>(type)];
}

ncclRedOp_t Native(ReduceOp op) {
  constexpr ncclRedOp_t kOps[] = {ncclSum, ncclMax, ncclMin, ncclSum};  // kTreeSum: of pairs
  return kOps[static_cast<size_t>(op)];
}

// Later work on `origin` waits for all collectives so far on `stream`, which run in order.
class Pending final : public Request::State {
 public:
  Pending(cudaStream_t stream, cudaEvent_t done, cudaStream_t origin)
      : stream_(stream), done_(done), origin_(origin) {}
  void Wait() override {
    DEEPER_CUDA_CHECK(cudaEventRecord(done_, stream_));
    DEEPER_CUDA_CHECK(cudaStreamWaitEvent(origin_, done_, 0));
  }
  bool Test() override {
    Wait();
    return true;
  }

 private:
  const cudaStream_t stream_;
  const cudaEvent_t done_;
  const cudaStream_t origin_;
};

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(Communicator& inner, Device& device, bool tree_sums)
      : Communicator(inner.place()), nccl_(*Nccl()), inner_(inner), gpu_(device.address()) {
    int least = 0, greatest = 0;  // priorities: the greatest is the smallest number
    DEEPER_CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    DEEPER_CUDA_CHECK(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest));
    DEEPER_CUDA_CHECK(cudaEventCreateWithFlags(&forked_, cudaEventDisableTiming));
    DEEPER_CUDA_CHECK(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming));

    Connect(0, size());
    if (tree_sums && std::has_single_bit(static_cast<unsigned>(size())))
      for (int apart = 1; apart < size(); apart *= 2) Connect(rank() & ~apart, 2, apart);
    poller_ = std::jthread([this](const std::stop_token& stop) { Poll(stop); });
  }

  // Collective: every rank must call it to end NCCL.
  ~NcclCommunicator() override {
    poller_ = {};  // stops and joins
    DEEPER_CUDA_CHECK(cudaStreamSynchronize(stream_));
    for (void* registration : registrations_) nccl_.CommDeregister(all(), registration);
    for (ncclComm_t& comm : comms_) {
      Complete(
          "ncclCommFinalize", comm, [&] { return nccl_.CommFinalize(comm); }, kDeadline);
      nccl_.CommDestroy(comm);
    }
    cudaEventDestroy(done_);
    cudaEventDestroy(forked_);
    cudaStreamDestroy(stream_);
  }

  std::string name() const override { return "nccl"; }
  bool recordable() const override { return true; }

  Request AllReduce(void* data, size_t count, CommType type, ReduceOp op, Stream stream) override {
    const auto reduce = [&](ncclComm_t comm) {
      return nccl_.AllReduce(data, data, count, Native(type), Native(op), comm, stream_);
    };
    if (op != ReduceOp::kTreeSum) return Start("ncclAllReduce", stream, reduce);
    DEEPER_CHECK(type == CommType::kF32 && 1 << (comms_.size() - 1) == size(),
                 "tree sums are of fp32, and for communicators that are made for them");
    return Start("ncclAllReduce", stream, reduce, std::span(comms_).subspan(1));
  }
  Request SumInBf16(float*, float*, size_t, Stream) override {
    CheckFailed(__FILE__, __LINE__, "SumInBf16", "not over NCCL");
  }
  Request ReduceScatter(const float* data, float* shard, size_t count, Stream stream) override {
    return Start("ncclReduceScatter", stream, [&](ncclComm_t comm) {
      return nccl_.ReduceScatter(data, shard, count, ncclFloat32, ncclSum, comm, stream_);
    });
  }
  Request AllGather(const void* mine, void* all, size_t bytes, Stream stream) override {
    return Start("ncclAllGather", stream, [&](ncclComm_t comm) {
      return nccl_.AllGather(mine, all, bytes, ncclUint8, comm, stream_);
    });
  }
  Request Broadcast(void* data, size_t bytes, int root, Stream stream) override {
    return Start("ncclBroadcast", stream, [&](ncclComm_t comm) {
      return nccl_.Broadcast(data, data, bytes, ncclUint8, root, comm, stream_);
    });
  }
  // Failures cost only speed: not every network and GPU supports it, and some do not report that.
  void Register(void* data, size_t bytes) override {
    void* registration = nullptr;
    const std::lock_guard lock(nccl_mutex_);
    if (nccl_.CommRegister(all(), data, bytes, &registration) == ncclSuccess && registration != nullptr)
      registrations_.push_back(registration);
  }

  void Barrier() override { inner_.Barrier(); }
  void Abort(int exit_code, const std::string& reason) override { inner_.Abort(exit_code, reason); }

 private:
  ncclComm_t all() const { return comms_.front(); }

  // Collective. Connects `count` ranks: `first`, first + apart, ... This one is among them.
  void Connect(int first, int count, int apart = 1) {
    ncclUniqueId id{};
    const ncclResult_t made = rank() == first ? nccl_.GetUniqueId(&id) : ncclSuccess;
    if (made != ncclSuccess) Fail("ncclGetUniqueId", nullptr, made);
    std::vector<ncclUniqueId> ids(static_cast<size_t>(size()));
    inner_.AllGather(&id, ids.data(), sizeof id, {}).Wait();
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclComm_t& comm = comms_.emplace_back(nullptr);
    const auto connect = [&] {
      return nccl_.CommInitRankConfig(&comm, count, ids[static_cast<size_t>(first)], (rank() - first) / apart,
                                      &config);
    };
    Complete("ncclCommInitRankConfig", comm, connect, kDeadline);
  }

  // Makes NCCL's stream wait for `stream`, and enqueues one collective there on each of `comms`; empty: on
  // that of all ranks.
  template <class Call>
  Request Start(const char* name, Stream stream, const Call& call, std::span<ncclComm_t> comms = {}) {
    const auto origin = static_cast<cudaStream_t>(stream.native);
    DEEPER_CUDA_CHECK(cudaEventRecord(forked_, origin));
    DEEPER_CUDA_CHECK(cudaStreamWaitEvent(stream_, forked_, 0));
    if (comms.empty()) comms = std::span(comms_).first(1);
    for (ncclComm_t& comm : comms) Complete(name, comm, [&] { return call(comm); });
    return Request(std::make_unique<Pending>(stream_, done_, origin));
  }

  // A non-blocking communicator returns ncclInProgress while one of its threads works: at the start, for the
  // first collective of each kind, which connects the ranks, and since NCCL 2.28 for every call. Only after
  // that is the collective on the stream. A peer that is late is for the watchdog to judge.
  template <class Call>
  void Complete(const char* name, const ncclComm_t& comm, const Call& call,
                std::chrono::seconds limit = kUnlimited) {
    using Clock = std::chrono::steady_clock;
    constexpr std::chrono::microseconds kSpin(50), kYield(1000);  // longer than the host needs to enqueue
    const WaitingForPeers waiting;
    const Clock::time_point start = Clock::now();
    ncclResult_t result = Locked(call);
    while (result == ncclInProgress) {
      const Clock::duration waited = Clock::now() - start;
      if (waited > limit) break;
      if (waited > kYield) std::this_thread::sleep_for(kYield);
      if (waited > kSpin) std::this_thread::yield();
      result = Locked([&] { return AsyncError(comm); });
    }
    if (result != ncclSuccess) Fail(name, comm, result);
  }

  // NCCL allows one thread at a time in a communicator; even ncclCommGetAsyncError changes it.
  template <class Call>
  ncclResult_t Locked(const Call& call) {
    const std::lock_guard lock(nccl_mutex_);
    return call();
  }

  ncclResult_t AsyncError(ncclComm_t comm) const {
    ncclResult_t state = ncclSuccess;
    const ncclResult_t asked = nccl_.CommGetAsyncError(comm, &state);
    return asked == ncclSuccess ? state : asked;
  }

  // Does not call ncclCommAbort: the step that waits for the GPU would then continue with wrong sums. The end
  // of the process also ends NCCL's kernels on the GPU.
  [[noreturn]] void Fail(const char* name, ncclComm_t comm, ncclResult_t result) {
    const char* const what =
        result == ncclInProgress ? "ranks did not connect within 120 s" : nccl_.GetErrorString(result);
    inner_.Abort(kCommunicationExitCode,
                 absl::StrCat(name, " failed on GPU ", gpu_, ": ", what, "; NCCL: ", nccl_.GetLastError(comm),
                              " (set NCCL_DEBUG=INFO for details)"));
    std::_Exit(kCommunicationExitCode);  // not reached
  }

  // While recorded steps are replayed no thread calls NCCL, but NCCL still detects lost peers and networks.
  void Poll(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (!poll_.wait_for(lock, stop, kPollInterval, [&] { return stop.stop_requested(); })) {
      const std::unique_lock nccl_lock(nccl_mutex_, std::try_to_lock);
      if (!nccl_lock.owns_lock()) continue;  // the other thread sees the error
      for (const ncclComm_t comm : comms_) {
        const ncclResult_t state = AsyncError(comm);
        if (state != ncclSuccess && state != ncclInProgress) Fail("a collective", comm, state);
      }
    }
  }

  const NcclLibrary& nccl_;
  Communicator& inner_;
  const std::string gpu_;
  // Of all ranks; then, for tree sums, of this rank and its partner at distance 1, 2, 4, ...
  std::vector<ncclComm_t> comms_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t forked_ = nullptr, done_ = nullptr;
  std::vector<void*> registrations_;
  std::mutex nccl_mutex_;             // of calls of NCCL with comms_
  std::mutex mutex_;                  // of poll_
  std::condition_variable_any poll_;  // notified only by a stop
  std::jthread poller_;
};

}  // namespace

absl::StatusOr<std::string> LoadNccl() {
  RETURN_IF_ERROR(Nccl().status());
  return absl::StrCat("NCCL ", Nccl()->Version());
}

std::unique_ptr<Communicator> MakeNcclCommunicator(Communicator& inner, Device& device, bool tree_sums) {
  return std::make_unique<NcclCommunicator>(inner, device, tree_sums);
}

}  // namespace deeper
