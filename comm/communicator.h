// Collectives between the ranks of a job. They work on pointers, counts and streams, independently of models.
//
// Every rank calls the same collectives in the same order. Collectives are asynchronous and progress without
// help from the caller. The returned Request completes when `data` may be used again; buffers must stay
// untouched until then.
// Buffers are host memory, and `stream` is ignored: its work is complete when a call returns. Exception: the
// communicators of MakeDeviceCommunicator use device memory, which is final once the work on `stream`, the
// device's stream, is done. Their Request is complete when later work on that stream sees the result.
// Errors: after a lost peer or a library failure, a call does not return. It reports rank, operation and
// reason and ends the process through Abort (exit code 5), since peers would wait for ever.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "comm/phase.h"
#include "kernels/base/check.h"
#include "kernels/base/device.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/tensor.h"

namespace deeper {

// Exit code after a communication failure.
inline constexpr int kCommunicationExitCode = static_cast<int>(ExitCode::kCommunication);

// kTreeSum, for kF32 and a power of two of ranks, adds in the order of a balanced binary tree, neighbours
// first: ((r0 + r1) + (r2 + r3)) + ... If each rank's value is such a sum of its share of some parts, any
// number of ranks gives the same bits.
// Backends have tables in the order of these.
enum class ReduceOp { kSum, kMax, kMin, kTreeSum };
enum class CommType { kF32, kF64, kI64, kU8 };

inline size_t SizeOf(CommType type) {
  constexpr size_t kBytes[] = {4, 8, 8, 1};
  return kBytes[static_cast<size_t>(type)];
}

// Handle of one collective in progress. It must be complete before it is destroyed or assigned to, since the
// buffers are still in use. A default-constructed one is complete.
class Request {
 public:
  class State {
   public:
    virtual ~State() = default;
    virtual void Wait() = 0;  // blocks until complete
    virtual bool Test() = 0;  // true once complete
  };
  Request() = default;
  explicit Request(std::unique_ptr<State> state) : state_(std::move(state)) {}
  Request(Request&&) = default;
  Request& operator=(Request&& other) noexcept {
    DEEPER_CHECK(state_ == nullptr, "a collective is still in progress");
    state_ = std::move(other.state_);
    return *this;
  }
  ~Request() { DEEPER_CHECK(state_ == nullptr, "a collective is still in progress"); }
  void Wait() {
    if (!state_) return;
    const WaitingForPeers waiting;
    state_->Wait();
    state_.reset();
  }
  bool Test() {
    if (state_ && state_->Test()) state_.reset();
    return state_ == nullptr;
  }

 private:
  std::unique_ptr<State> state_;
};

// The number of this rank in the job, and among the ranks of its machine.
struct RankPlace {
  int rank = 0, size = 1, local_rank = 0, local_size = 1;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  virtual std::string name() const = 0;  // "single", "threads", "mpi", "nccl"
  // On rank 0: the library and how it transfers data, for the user; empty: nothing to say.
  virtual std::string library() const { return ""; }
  // Whether collectives and their Requests consist only of work on streams, and can therefore be recorded.
  virtual bool recordable() const { return false; }
  int rank() const { return place_.rank; }
  int size() const { return place_.size; }
  int local_rank() const { return place_.local_rank; }
  int local_size() const { return place_.local_size; }
  const RankPlace& place() const { return place_; }

  // data: [count], replaced on every rank by the reduction over ranks. The result has the same bits on every
  // rank, and in every run with the same number of ranks.
  virtual Request AllReduce(void* data, size_t count, CommType type, ReduceOp op, Stream stream) = 0;
  // data, residual: [count]. Replaces data on every rank by the sum over ranks of data + residual, as
  // precisely as bf16 allows, and this rank's residual by its share of the rounding error. Over many calls,
  // the results plus the residuals of all ranks lose nothing. Transfers half the bytes of an AllReduce. The
  // same bits on every rank and in every run with the same number of ranks.
  virtual Request SumInBf16(float* data, float* residual, size_t count, Stream stream) = 0;
  // shard: [count]; rank r receives elements [r * count, (r + 1) * count) of the sum over ranks of `data`
  // [size() * count] (fp32). Not in place.
  virtual Request ReduceScatter(const float* data, float* shard, size_t count, Stream stream) = 0;
  // all: [size() * bytes]; every rank receives the concatenation of all ranks' `mine` [bytes], in rank order.
  // mine may be all + rank * bytes.
  virtual Request AllGather(const void* mine, void* all, size_t bytes, Stream stream) = 0;
  // Ring shift: to_next [bytes] goes to the next rank, which receives it as from_previous [bytes]. A rank
  // that sends or receives nothing passes nullptr; its neighbour must do likewise. Host memory only: not for
  // communicators of a device.
  virtual Request Shift(const void* to_next, void* from_previous, size_t bytes);
  // data: [bytes], replaced by root's.
  virtual Request Broadcast(void* data, size_t bytes, int root, Stream stream) = 0;
  // Prepares for many collectives on this memory or parts of it, where that helps. The memory must outlive
  // the communicator.
  virtual void Register(void* data, size_t bytes) { (void)data, (void)bytes; }
  // Returns when every rank has called it.
  virtual void Barrier() = 0;
  // Collective, over host memory only. A communicator of the same ranks with an independent order of
  // collectives, for use by another thread. Must end before this one, on every rank.
  virtual std::unique_ptr<Communicator> Duplicate() {
    DEEPER_CHECK(false, "only communicators over host memory have duplicates");
    return nullptr;
  }
  // Ends every rank of the job with this exit code; does not return.
  [[noreturn]] virtual void Abort(int exit_code, const std::string& reason) = 0;

 protected:
  explicit Communicator(const RankPlace& place = {}) : place_(place) {}

  RankPlace place_;
};

// One process, no peers.
std::unique_ptr<Communicator> MakeSingleCommunicator();

}  // namespace deeper
