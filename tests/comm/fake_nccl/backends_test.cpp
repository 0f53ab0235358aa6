// The suite of communicators, and of the gradient reducer, on NcclCommunicator over the fake NCCL.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "comm/nccl/nccl_communicator.h"
#include "tests/comm/fake_nccl/gpu_ranks.h"
#include "tests/comm/on_every_backend.h"

namespace deeper {
namespace {

// The suite has its data in host memory: copies it to the device and back.
class OnDevice final : public Communicator {
 public:
  OnDevice(Communicator& host, Device& device, Communicator& nccl)
      : Communicator(nccl.place()), host_(host), device_(device), nccl_(nccl) {}
  std::string name() const override { return nccl_.name(); }

  Request AllReduce(void* data, size_t count, CommType type, ReduceOp op, Stream) override {
    const size_t bytes = count * SizeOf(type);
    return Start(data, bytes, data, bytes,
                 [&](void* in, void*) { return nccl_.AllReduce(in, count, type, op, device_.stream()); });
  }
  Request SumInBf16(float* data, float* residual, size_t count, Stream stream) override {
    return host_.SumInBf16(data, residual, count, stream);
  }
  Request ReduceScatter(const float* data, float* shard, size_t count, Stream) override {
    const size_t bytes = count * sizeof(float);
    return Start(data, bytes * static_cast<size_t>(size()), shard, bytes, [&](void* in, void* out) {
      return nccl_.ReduceScatter(static_cast<float*>(in), static_cast<float*>(out), count, device_.stream());
    });
  }
  Request AllGather(const void* mine, void* all, size_t bytes, Stream) override {
    return Start(mine, bytes, all, bytes * static_cast<size_t>(size()),
                 [&](void* in, void* out) { return nccl_.AllGather(in, out, bytes, device_.stream()); });
  }
  Request Broadcast(void* data, size_t bytes, int root, Stream) override {
    return Start(data, bytes, data, bytes,
                 [&](void* in, void*) { return nccl_.Broadcast(in, bytes, root, device_.stream()); });
  }
  Request Shift(const void* to_next, void* from_previous, size_t bytes) override {
    return host_.Shift(to_next, from_previous, bytes);
  }
  void Barrier() override { nccl_.Barrier(); }
  std::unique_ptr<Communicator> Duplicate() override { return host_.Duplicate(); }
  void Abort(int exit_code, const std::string& reason) override { nccl_.Abort(exit_code, reason); }

 private:
  class Copied final : public Request::State {
   public:
    Copied(Device& device, void* to, size_t bytes, Buffer in, Buffer out, Request request)
        : device_(device),
          to_(to),
          bytes_(bytes),
          in_(std::move(in)),
          out_(std::move(out)),
          request_(std::move(request)) {}
    void Wait() override {
      request_.Wait();
      device_.Copy(to_, out_.data() == nullptr ? in_.data() : out_.data(), bytes_);
      device_.Synchronize();
    }
    bool Test() override {
      Wait();
      return true;
    }

   private:
    Device& device_;
    void* const to_;
    const size_t bytes_;
    const Buffer in_, out_;
    Request request_;
  };

  template <class Call>
  Request Start(const void* from, size_t in_bytes, void* to, size_t out_bytes, const Call& call) {
    if (in_bytes == 0) return {};
    Buffer in = device_.Allocate(to == from ? std::max(in_bytes, out_bytes) : in_bytes), out;
    if (to != from) out = device_.Allocate(out_bytes);
    device_.Copy(in.data(), from, in_bytes);
    Request request = call(in.data(), out.data() == nullptr ? in.data() : out.data());
    return Request(
        std::make_unique<Copied>(device_, to, out_bytes, std::move(in), std::move(out), std::move(request)));
  }

  Communicator& host_;
  Device& device_;
  Communicator& nccl_;
};

Backend Nccl(int size, uint64_t seed) {
  return {"Nccl" + std::to_string(size) + "Seed" + std::to_string(seed), [size, seed](const RankBody& body) {
            OnGpuRanks(size, {.seed = seed}, [&](GpuRank& rank) {
              OnDevice comm(rank.host, *rank.device, *rank.nccl);
              body(comm);
            });
          }};
}

INSTANTIATE_TEST_SUITE_P(Comm, OnEveryBackend, ::testing::Values(Nccl(1, 0), Nccl(2, 1), Nccl(4, 2)),
                         BackendName);

}  // namespace
}  // namespace deeper
