// The point-to-point messages that a collective of our own is made of.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <functional>
#include <vector>

namespace deeper {

// What the collectives of one communicator share. For use under the lock of its ProgressThread.
struct MpiPeers {
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0, size = 1;
  size_t max_bytes = 0;                                   // of one message
  std::function<void(const char* call, int code)> check;  // ends the job if the call failed
  int tag = 0;                                            // of the newest collective
  std::vector<std::vector<std::byte>> scratch;            // to be used again, so that steps allocate nothing
};

// One collective's messages: every rank makes its exchanges in the same order, which gives them their tags.
class MpiExchange {
 public:
  explicit MpiExchange(MpiPeers& peers);
  ~MpiExchange();
  MpiExchange(const MpiExchange&) = delete;
  MpiExchange& operator=(const MpiExchange&) = delete;

  const MpiPeers& peers() const { return peers_; }
  // Memory for this exchange alone, once; not cleared.
  template <class T>
  T* Scratch(size_t count) {
    return reinterpret_cast<T*>(ScratchBytes(count * sizeof(T)));
  }
  // Between two ranks, messages arrive in the order they are sent in.
  void Send(const void* data, size_t bytes, int to);
  void Receive(void* data, size_t bytes, int from);
  // True once all messages sent and received so far are complete.
  bool Done();

 private:
  std::byte* ScratchBytes(size_t bytes);

  MpiPeers& peers_;
  const int tag_;
  std::vector<std::byte> scratch_;
  std::vector<MPI_Request> under_way_;
};

}  // namespace deeper
