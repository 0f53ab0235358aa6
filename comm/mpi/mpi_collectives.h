// Collectives that MPI lacks, made of point-to-point messages.
#pragma once

#include <mpi.h>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "comm/mpi/progress_thread.h"

namespace deeper {

// State shared by the collectives of one communicator. Use under the lock of its ProgressThread.
struct MpiPeers {
  MPI_Comm comm = MPI_COMM_NULL;
  const RankPlace* place = nullptr;                       // of this rank
  size_t max_elements = 0;                                // of one MPI call
  std::function<void(const char* call, int code)> check;  // ends the job if the call failed
  int tag = 0;                                            // of the latest collective
  std::vector<std::vector<std::byte>> scratch;            // reused, so that steps allocate nothing

  // Calls start(first, count, MPI_Request*) for each part of `elements` that one MPI call may handle, and
  // collects the requests.
  template <class Start>
  void InParts(const char* call, size_t elements, std::vector<MPI_Request>& requests,
               const Start& start) const {
    for (size_t first = 0; first < elements; first += max_elements) {
      const int count = static_cast<int>(std::min(max_elements, elements - first));
      check(call, start(first, count, &requests.emplace_back(MPI_REQUEST_NULL)));
    }
  }
  // Whether all requests are complete; if so, removes them.
  bool Done(const char* call, std::vector<MPI_Request>& requests) const {
    int done = 0;
    check(call, MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE));
    if (done != 0) requests.clear();
    return done != 0;
  }
};

// Each call starts the collective. `peers` and the buffers must outlive it.

// See Communicator::Shift.
std::unique_ptr<ProgressThread::Operation> StartShift(MpiPeers& peers, const void* to_next,
                                                      void* from_previous, size_t bytes);

// Reduction of data [count], in place, with the same bits on every rank: recursive doubling, in log2(size)
// rounds of one message each, and two more if size is not a power of two. Open MPI's ring, which suits large
// data, has 2 (size - 1) rounds.
std::unique_ptr<ProgressThread::Operation> StartSmallReduction(MpiPeers& peers, void* data, size_t count,
                                                               MPI_Datatype type, MPI_Op op);

// Communicator::AllGather with this rank's share in its place in `all`: Bruck's algorithm, in log2(size)
// rounds, rounded up, of one message each. Open MPI's has size - 1 messages per rank.
std::unique_ptr<ProgressThread::Operation> StartSmallGather(MpiPeers& peers, std::byte* all, size_t bytes);

// ReduceOp::kTreeSum of data [count]: recursive halving, then recursive doubling (Thakur, Rabenseifner and
// Gropp, "Optimization of collective communication operations in MPICH", 2005). Every rank sends and receives
// 2 (size - 1) / size of the data, the minimum for an all-reduce. Halving starts with neighbours: pairs, then
// pairs of pairs. So the order is ((r0 + r1) + (r2 + r3)) + ... for every element. The number of ranks must
// be a power of two.
std::unique_ptr<ProgressThread::Operation> StartTreeSum(MpiPeers& peers, float* data, size_t count);

// Communicator::SumInBf16: every rank sends each owner its part, and receives the owners' sums. In both
// directions 2 (size - 1) / size of count bf16s, half as much as an all-reduce of floats.
std::unique_ptr<ProgressThread::Operation> StartBf16Sum(MpiPeers& peers, float* data, float* residual,
                                                        size_t count);

}  // namespace deeper
