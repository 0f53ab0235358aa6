#include "comm/nccl/staged_communicator.h"

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

namespace deeper {
namespace {

class StagedCommunicator final : public Communicator {
 public:
  StagedCommunicator(Communicator& inner, Device& device)
      : Communicator(inner.place()), inner_(inner), device_(device) {}

  std::string name() const override { return inner_.name(); }

  Request AllReduce(void* data, size_t count, CommType type, ReduceOp op, Stream) override {
    const size_t bytes = count * SizeOf(type);
    return Start({data, bytes}, {data, bytes}, [this, count, type, op](void* in, void*) {
      return inner_.AllReduce(in, count, type, op, {});
    });
  }
  Request SumInBf16(float* data, float* residual, size_t count, Stream) override {
    const size_t bytes = count * sizeof(float);
    return Start({data, bytes}, {data, bytes}, [this, residual, count](void* in, void*) {
      return inner_.SumInBf16(static_cast<float*>(in), residual, count, {});
    });
  }
  Request ReduceScatter(const float* data, float* shard, size_t count, Stream) override {
    const size_t bytes = count * sizeof(float);
    return Start({data, Ranks() * bytes}, {shard, bytes}, [this, count](void* in, void* out) {
      return inner_.ReduceScatter(static_cast<float*>(in), static_cast<float*>(out), count, {});
    });
  }
  Request AllGather(const void* mine, void* all, size_t bytes, Stream) override {
    return Start({mine, bytes}, {all, Ranks() * bytes},
                 [this, bytes](void* in, void* out) { return inner_.AllGather(in, out, bytes, {}); });
  }
  Request Broadcast(void* data, size_t bytes, int root, Stream) override {
    return Start({data, bytes}, {data, bytes},
                 [this, bytes, root](void* in, void*) { return inner_.Broadcast(in, bytes, root, {}); });
  }
  void Barrier() override { inner_.Barrier(); }
  void Abort(int exit_code, const std::string& reason) override { inner_.Abort(exit_code, reason); }

 private:
  struct Source {
    const void* data;
    size_t bytes;
  };
  struct Target {
    void* data;
    size_t bytes;
  };
  // The collective on host memory. `in` and `out` are equal if it works in place.
  using Collective = std::function<Request(void* in, void* out)>;
  class Pending final : public Request::State {
   public:
    Pending(StagedCommunicator& comm, const Source& from, const Target& to, Collective collective)
        : comm_(comm), to_(to), collective_(std::move(collective)), in_(comm.TakeStaging(from.bytes)) {
      if (to.data != from.data || to.bytes != from.bytes) out_ = comm.TakeStaging(to.bytes);
      download_ = comm.device_.StartDownload(in_.data(), from.data, from.bytes);
    }

    // No need to wait for the upload: the next user of the staging memory writes to it only after a download,
    // which is enqueued behind the work joined here.
    void Wait() override {
      download_->Wait();
      const Buffer& result = out_.data() == nullptr ? in_ : out_;
      collective_(in_.data(), result.data()).Wait();
      comm_.device_.Upload(to_.data, result.data(), to_.bytes);
      comm_.device_.JoinUploads();
      for (Buffer* buffer : {&in_, &out_})
        if (buffer->data() != nullptr) comm_.idle_.push_back(std::move(*buffer));
    }
    bool Test() override {  // progress happens only in Wait
      Wait();
      return true;
    }

   private:
    StagedCommunicator& comm_;
    const Target to_;
    const Collective collective_;
    Buffer in_, out_;  // out_: empty where the collective is in place
    std::unique_ptr<Download> download_;
  };

  size_t Ranks() const { return static_cast<size_t>(size()); }
  Request Start(const Source& from, const Target& to, Collective collective) {
    if (from.bytes == 0) return {};
    return Request(std::make_unique<Pending>(*this, from, to, std::move(collective)));
  }
  Buffer TakeStaging(size_t bytes) {
    const auto fits = std::find_if(idle_.begin(), idle_.end(),
                                   [&](const Buffer& buffer) { return buffer.bytes() == bytes; });
    if (fits == idle_.end()) {
      Buffer fresh = device_.AllocateStaging(bytes);
      DEEPER_CHECK(fresh.data() != nullptr, "no pinned host memory for what ranks exchange");
      return fresh;
    }
    Buffer taken = std::move(*fits);
    idle_.erase(fits);
    return taken;
  }

  Communicator& inner_;
  Device& device_;
  std::vector<Buffer> idle_;  // pinned memory, reused by later steps since allocation is slow
};

}  // namespace

std::unique_ptr<Communicator> MakeStagedCommunicator(Communicator& inner, Device& device) {
  return std::make_unique<StagedCommunicator>(inner, device);
}

}  // namespace deeper
