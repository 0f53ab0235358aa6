#include "tests/comm/threads_communicator.h"

#include <algorithm>
#include <bit>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>

#include "comm/bf16_sum.h"
#include "kernels/base/check.h"

namespace deeper {
namespace {

// Arguments of a collective that must be the same on all ranks.
struct Signature {
  const char* name;
  size_t count;
  int variant;  // type and reduction, or root
  bool operator==(const Signature& other) const {
    return std::strcmp(name, other.name) == 0 && count == other.count && variant == other.variant;
  }
};

struct Collective {
  Signature signature{};
  std::vector<const void*> in;   // [rank]
  std::vector<void*> out;        // [rank]
  std::vector<float*> residual;  // [rank], of SumInBf16
  int arrived = 0;
  bool done = false;
};

// Connects all ranks. The rank that arrives last does the work of a collective, on the buffers of all ranks.
class Group {
 public:
  using Work = std::function<void(const Collective&)>;

  explicit Group(int size) : size_(size) {}
  int size() const { return size_; }

  std::shared_ptr<Collective> Join(int rank, uint64_t sequence, const Signature& signature, const void* in,
                                   void* out, float* residual, const Work& work) {
    std::unique_lock lock(mutex_);
    std::shared_ptr<Collective>& slot = gathering_[sequence];
    if (slot == nullptr) {
      slot = std::make_shared<Collective>();
      slot->signature = signature;
      slot->in.resize(static_cast<size_t>(size_));
      slot->out.resize(static_cast<size_t>(size_));
      slot->residual.resize(static_cast<size_t>(size_));
    }
    std::shared_ptr<Collective> collective = slot;
    DEEPER_CHECK(collective->signature == signature,
                 "rank " + std::to_string(rank) + " calls " + signature.name + " of " +
                     std::to_string(signature.count) + " where another calls " + collective->signature.name +
                     " of " + std::to_string(collective->signature.count));
    collective->in[static_cast<size_t>(rank)] = in;
    collective->out[static_cast<size_t>(rank)] = out;
    collective->residual[static_cast<size_t>(rank)] = residual;
    if (++collective->arrived < size_) return collective;
    gathering_.erase(sequence);
    lock.unlock();
    work(*collective);
    lock.lock();
    collective->done = true;
    done_.notify_all();
    return collective;
  }
  void Wait(const Collective& collective) {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return collective.done; });
  }
  bool Test(const Collective& collective) {
    std::lock_guard lock(mutex_);
    return collective.done;
  }
  // Every rank that passes the same number gets the same group.
  std::shared_ptr<Group> Duplicate(size_t number) {
    std::lock_guard lock(mutex_);
    while (duplicates_.size() <= number) duplicates_.push_back(std::make_shared<Group>(size_));
    return duplicates_[number];
  }

 private:
  const int size_;
  std::mutex mutex_;
  std::condition_variable done_;
  std::map<uint64_t, std::shared_ptr<Collective>> gathering_;  // by sequence number
  std::vector<std::shared_ptr<Group>> duplicates_;
};

class Pending final : public Request::State {
 public:
  Pending(std::shared_ptr<Group> group, std::shared_ptr<Collective> collective)
      : group_(std::move(group)), collective_(std::move(collective)) {}
  void Wait() override { group_->Wait(*collective_); }
  bool Test() override { return group_->Test(*collective_); }

 private:
  std::shared_ptr<Group> group_;
  std::shared_ptr<Collective> collective_;
};

template <class T>
void Fold(ReduceOp op, const T* from, T* into, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    switch (op) {
      case ReduceOp::kSum:
      case ReduceOp::kTreeSum:
        into[i] = static_cast<T>(into[i] + from[i]);
        break;
      case ReduceOp::kMax:
        into[i] = std::max(into[i], from[i]);
        break;
      case ReduceOp::kMin:
        into[i] = std::min(into[i], from[i]);
        break;
    }
  }
}

// The reduction over ranks of elements [first, first + count) of their inputs, in rank order or as a tree.
template <class T>
std::vector<T> Reduce(const Collective& collective, ReduceOp op, size_t first, size_t count) {
  std::vector<std::vector<T>> values;  // [rank]
  for (const void* in : collective.in)
    values.emplace_back(static_cast<const T*>(in) + first, static_cast<const T*>(in) + first + count);
  const size_t ranks = values.size();
  if (op == ReduceOp::kTreeSum) {
    DEEPER_CHECK(std::has_single_bit(ranks), "a tree over " + std::to_string(ranks) + " ranks");
    for (size_t apart = 1; apart < ranks; apart *= 2) {
      for (size_t rank = 0; rank < ranks; rank += 2 * apart)
        Fold(op, values[rank + apart].data(), values[rank].data(), count);
    }
  } else {
    for (size_t rank = 1; rank < ranks; ++rank) Fold(op, values[rank].data(), values[0].data(), count);
  }
  return std::move(values[0]);
}

template <class T>
void AllReduceAs(const Collective& collective, ReduceOp op) {
  const size_t count = collective.signature.count;
  const std::vector<T> result = Reduce<T>(collective, op, 0, count);
  for (void* out : collective.out) std::copy(result.begin(), result.end(), static_cast<T*>(out));
}

void AllReduceAll(const Collective& collective, CommType type, ReduceOp op) {
  switch (type) {
    case CommType::kF32:
      return AllReduceAs<float>(collective, op);
    case CommType::kF64:
      return AllReduceAs<double>(collective, op);
    case CommType::kI64:
      return AllReduceAs<int64_t>(collective, op);
    case CommType::kU8:
      return AllReduceAs<uint8_t>(collective, op);
  }
}

void SumInBf16All(const Collective& collective) {
  const size_t count = collective.signature.count;
  const int ranks = static_cast<int>(collective.out.size());
  std::vector<std::vector<bf16>> wires(collective.out.size(), std::vector<bf16>(count));  // [rank]
  for (size_t rank = 0; rank < wires.size(); ++rank)
    RoundWithFeedback(static_cast<const float*>(collective.in[rank]), collective.residual[rank],
                      wires[rank].data(), count);
  for (int owner = 0; owner < ranks; ++owner) {
    const OwnedPart part(count, ranks, owner);
    std::vector<const bf16*> parts;
    for (const std::vector<bf16>& wire : wires) parts.push_back(wire.data() + part.begin);
    SumParts(parts, collective.residual[static_cast<size_t>(owner)] + part.begin,
             wires[0].data() + part.begin, part.size());
  }
  for (void* out : collective.out) Widen(wires[0].data(), static_cast<float*>(out), count);
}

void ReduceScatterAll(const Collective& collective) {
  const size_t count = collective.signature.count;
  for (size_t rank = 0; rank < collective.out.size(); ++rank) {
    const std::vector<float> shard = Reduce<float>(collective, ReduceOp::kSum, rank * count, count);
    std::copy(shard.begin(), shard.end(), static_cast<float*>(collective.out[rank]));
  }
}

void AllGatherAll(const Collective& collective) {
  const size_t bytes = collective.signature.count;
  for (void* all : collective.out) {
    for (size_t rank = 0; rank < collective.in.size(); ++rank) {
      std::byte* to = static_cast<std::byte*>(all) + rank * bytes;
      if (bytes > 0 && to != collective.in[rank]) std::memcpy(to, collective.in[rank], bytes);
    }
  }
}

void ShiftAll(const Collective& collective) {
  const size_t ranks = collective.in.size();
  for (size_t rank = 0; rank < ranks; ++rank) {
    void* const to = collective.out[(rank + 1) % ranks];
    DEEPER_CHECK((to == nullptr) == (collective.in[rank] == nullptr), "neighbours disagree about a shift");
    if (to != nullptr && collective.signature.count > 0)
      std::memcpy(to, collective.in[rank], collective.signature.count);
  }
}

void BroadcastAll(const Collective& collective, int root) {
  const void* from = collective.in[static_cast<size_t>(root)];
  for (void* to : collective.out)
    if (collective.signature.count > 0 && to != from) std::memcpy(to, from, collective.signature.count);
}

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<Group> group, int rank)
      : Communicator({rank, group->size(), rank, group->size()}), group_(std::move(group)) {}

  std::string name() const override { return "threads"; }

  Request AllReduce(void* data, size_t count, CommType type, ReduceOp op, Stream) override {
    const Signature signature{"AllReduce", count, static_cast<int>(type) * 8 + static_cast<int>(op)};
    return Join(signature, data, data, [type, op](const Collective& all) { AllReduceAll(all, type, op); });
  }
  Request SumInBf16(float* data, float* residual, size_t count, Stream) override {
    return Join({"SumInBf16", count, 0}, data, data, SumInBf16All, residual);
  }
  Request ReduceScatter(const float* data, float* shard, size_t count, Stream) override {
    return Join({"ReduceScatter", count, 0}, data, shard, ReduceScatterAll);
  }
  Request AllGather(const void* mine, void* all, size_t bytes, Stream) override {
    return Join({"AllGather", bytes, 0}, mine, all, AllGatherAll);
  }
  Request Shift(const void* to_next, void* from_previous, size_t bytes) override {
    return Join({"Shift", bytes, 0}, to_next, from_previous, ShiftAll);
  }
  Request Broadcast(void* data, size_t bytes, int root, Stream) override {
    return Join({"Broadcast", bytes, root}, data, data,
                [root](const Collective& all) { BroadcastAll(all, root); });
  }
  void Barrier() override {
    Join({"Barrier", 0, 0}, nullptr, nullptr, [](const Collective&) {}).Wait();
  }
  std::unique_ptr<Communicator> Duplicate() override {
    return std::make_unique<ThreadCommunicator>(group_->Duplicate(duplicates_++), rank());
  }
  void Abort(int exit_code, const std::string& reason) override {
    std::fprintf(stderr, "deeper: rank %d of %d: %s\n", rank(), size(), reason.c_str());
    std::_Exit(exit_code);
  }

 private:
  Request Join(const Signature& signature, const void* in, void* out, const Group::Work& work,
               float* residual = nullptr) {
    return Request(std::make_unique<Pending>(
        group_, group_->Join(rank(), sequence_++, signature, in, out, residual, work)));
  }

  std::shared_ptr<Group> group_;
  uint64_t sequence_ = 0;
  size_t duplicates_ = 0;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> MakeThreadCommunicators(int size) {
  DEEPER_CHECK(size > 0);
  const auto group = std::make_shared<Group>(size);
  std::vector<std::unique_ptr<Communicator>> communicators;
  for (int rank = 0; rank < size; ++rank)
    communicators.push_back(std::make_unique<ThreadCommunicator>(group, rank));
  return communicators;
}

}  // namespace deeper
